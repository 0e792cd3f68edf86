"""The command ``neuroal-data``: download data sets for machines without network."""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from neuroal.cli.application import exit_with
from neuroal.cli.flags import ArgumentParser
from neuroal.cli.messages import print_json
from neuroal.data.hub import unreachable
from neuroal.data.resolve import SUFFIXES, DataSplit, find_rows, from_hub, in_cache, in_folder
from neuroal.data.sets import SETS, DataSet, data_set
from neuroal.errors import UserError, first_line, nearest
from neuroal.files.atomic import replacing

EPILOG = """\
fetch  download data sets to the Hugging Face cache, or to a folder for data.root with --root
check  report which data sets a run can read without network; exit code 1 if any is missing
list   print the data sets and their splits
"""
Split = tuple[str, str]  # names of a data set and of one of its splits


def main() -> NoReturn:
    """Run the console script ``neuroal-data``."""
    exit_with(lambda: data_command(sys.argv[1:]))


def data_command(arguments: Sequence[str]) -> int:
    """Run the command with `arguments`; return the exit code."""
    parser = ArgumentParser(
        "neuroal-data",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("fetch", "check", "list"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="data set, or NAME/SPLIT")
    parser.add_argument("--root", metavar="FOLDER", help="folder of local data sets, as data.root")
    parser.add_argument("--json", action="store_true", help="print rows as JSON, one per line")
    options = parser.parse_intermixed_args(arguments)
    splits = list(_splits(options.names or SETS))
    if options.action == "list":
        return show(splits, options.json)
    if options.action == "check":
        return check(splits, options.root, options.json)
    if not options.names:
        raise UserError(f"fetch: needs a data set; there are {', '.join(SETS)}")
    return fetch(splits, options.root, options.json)


def _splits(names: Iterable[str]) -> Iterator[Split]:
    """Yield the splits that `names` (NAME or NAME/SPLIT) denote."""
    for text in names:
        name, _, split = text.partition("/")
        splits = data_set(name).files
        if split and split not in splits:
            raise UserError(
                f"{text}: no such split; {name} has {', '.join(splits)}{nearest(split, splits)}"
            )
        yield from ((name, each) for each in ([split] if split else splits))


def show(splits: Sequence[Split], as_json: bool = False) -> int:
    """Print data sets and splits, their repositories on the Hub and files under ``data.root``."""
    table = _table("data set", "split", "hub", "under data.root")
    for name, split in splits:
        source = data_set(name)
        table.add_row(name, split, source.repo or "-", f"{source.folder}/{split}.jsonl.gz")
    _print(table, as_json)
    return 0


def check(splits: Sequence[Split], root: str | None, as_json: bool = False) -> int:
    """Print which splits are in `root` or in the cache; return 1 if any is missing or damaged."""
    table, unusable = _table("data set", "split", "found in", "rows", "SHA-256"), 0
    for name, split in splits:
        source = data_set(name)
        data = in_folder(source, split, root) or in_cache(source, split)
        try:
            cells = (data.origin, str(len(data.rows)), data.fingerprint[:12]) if data else None
        except UserError:
            cells = ("damaged: fetch it again", "", "")
        unusable += cells is None or not cells[1]
        table.add_row(name, split, *(cells or ("missing", "", "")))
    _print(table, as_json)
    return min(unusable, 1)


def fetch(splits: Sequence[Split], root: str | None, as_json: bool = False) -> int:
    """Download splits to the cache, or to `root`."""
    for name, split in splits:
        source = data_set(name)
        if source.repo is None:
            find_rows(name, split, root)  # raises if the split is not in `root`
            continue
        data = in_folder(source, split, root) or in_cache(source, split) or _download(source, split)
        if root is not None and in_folder(source, split, root) is None:
            data = copy(data, Path(root) / source.folder, split)
        if as_json:
            row = {"name": name, "split": split, "rows": len(data.rows), "origin": data.origin}
            print_json(row)
        else:
            print(f"{name}/{split}: {len(data.rows)} rows, {data.origin}")
    return 0


def _download(source: DataSet, split: str) -> DataSplit:
    if why := unreachable():
        raise UserError(f"{source.repo}: the hub cannot be reached ({why})")
    try:
        return from_hub(source, split)
    except UserError:
        raise
    except Exception as error:  # the client raises many types: no network, gated, no such branch
        raise UserError(f"{source.repo}: cannot be fetched ({first_line(error)})") from error


def copy(data: DataSplit, folder: Path, split: str) -> DataSplit:
    """Copy a split atomically to a folder of local data sets."""
    suffix = next(s for s in (*SUFFIXES, "") if data.files[0].name.endswith(s))
    single = len(data.files) == 1
    target = folder / f"{split}{suffix if single else '.jsonl.gz'}"
    with replacing(target) as part:
        if single:
            with data.files[0].open("rb") as source:
                shutil.copyfileobj(source, part)
        else:
            with gzip.open(part, "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in data.rows)
    return DataSplit((target,), str(folder))


def _print(table: Table, as_json: bool) -> None:
    """Print a table, or each of its rows as JSON."""
    if not as_json:
        Console().print(table)
        return
    heads = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        print_json(dict(zip(heads, map(str, cells), strict=True)))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
