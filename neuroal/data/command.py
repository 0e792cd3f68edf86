"""The command ``neuroal-data``: prepare a machine that has network for those that have not."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from neuroal.data.resolve import SUFFIXES, Found, find_rows, from_hub, in_cache, in_folder
from neuroal.data.sets import SETS, DataSet, data_set
from neuroal.errors import UserError, nearest
from neuroal.hub import unreachable

EPILOG = """\
fetch brings data sets into the Hugging Face cache, or with --root into a folder for data.root
check says which of them a run would find here without network; exit code 1: not all
list  says what there is
"""


def data_command(arguments: Sequence[str]) -> int:
    """Do what `arguments` say; returns the exit code.

    Raises:
        UserError: wrong arguments, or something that cannot be fetched.
    """
    parser = argparse.ArgumentParser(
        "neuroal-data",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument("action", choices=("fetch", "check", "list"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="data set, or NAME/SPLIT of one")
    parser.add_argument("--root", metavar="FOLDER", help="folder of local data sets, as data.root")
    try:
        given = parser.parse_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    wanted = list(_wanted(given.names or SETS))
    if given.action == "list":
        return show(wanted)
    if given.action == "check":
        return check(wanted, given.root)
    if not given.names:
        raise UserError(f"fetch: which? there are {', '.join(SETS)}")
    return fetch(wanted, given.root)


def _wanted(names: Sequence[str] | dict[str, DataSet]) -> Iterator[tuple[str, str]]:
    """(name, split) of what was named."""
    for text in names:
        name, _, split = text.partition("/")
        splits = data_set(name).files
        if split and split not in splits:
            raise UserError(
                f"{text}: no such split; {name} has {', '.join(splits)}{nearest(split, splits)}"
            )
        yield from ((name, found) for found in ([split] if split else splits))


def show(wanted: Sequence[tuple[str, str]]) -> int:
    """Print what there is: names, where on the hub, and which files ``data.root`` would hold."""
    table = _table("data set", "split", "hub", "under data.root")
    for name, split in wanted:
        known = data_set(name)
        table.add_row(name, split, known.repo or "-", f"{known.folder}/{split}.jsonl.gz")
    Console().print(table)
    return 0


def check(wanted: Sequence[tuple[str, str]], root: str | None) -> int:
    """Print which data a run finds in `root` or in the cache; 1 if any is missing or damaged."""
    table, lacking = _table("data set", "split", "found in", "rows", "SHA-256"), 0
    for name, split in wanted:
        known = data_set(name)
        found = in_folder(known, split, root) or in_cache(known, split)
        try:
            cells = (found.origin, str(len(found.rows)), found.fingerprint[:12]) if found else None
        except UserError:
            cells = ("damaged: fetch it anew", "", "")
        lacking += cells is None or not cells[1]
        table.add_row(name, split, *(cells or ("missing", "", "")))
    Console().print(table)
    return min(lacking, 1)


def fetch(wanted: Sequence[tuple[str, str]], root: str | None) -> int:
    """Bring data into the cache, or into `root`.

    Raises:
        UserError: one line about the first that cannot be had.
    """
    for name, split in wanted:
        known = data_set(name)
        if known.repo is None:
            find_rows(name, split, root)  # is there, or says that it cannot be fetched
            continue
        found = in_folder(known, split, root) or in_cache(known, split) or _download(known, split)
        if root is not None and in_folder(known, split, root) is None:
            found = copy(found, Path(root) / known.folder, split)
        print(f"{name}/{split}: {len(found.rows)} rows, {found.origin}")
    return 0


def _download(known: DataSet, split: str) -> Found:
    if why := unreachable():
        raise UserError(f"{known.repo}: the hub cannot be reached ({why})")
    try:
        return from_hub(known, split)
    except UserError:
        raise
    except Exception as error:  # the client raises many kinds: no network, gated, no such branch
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"{known.repo}: cannot be fetched ({first})") from error


def copy(found: Found, folder: Path, split: str) -> Found:
    """Put a split into a folder of local data sets, whole or not at all."""
    suffix = next(s for s in (*SUFFIXES, "") if found.files[0].name.endswith(s))
    single = len(found.files) == 1
    target = folder / f"{split}{suffix if single else '.jsonl.gz'}"
    part = folder / f".{target.name}.{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if single:
            shutil.copyfile(found.files[0], part)
        else:
            with gzip.open(part, "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return Found((target,), str(folder))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
