"""One answer to "the rows of data set X, split Y": local folder, Hugging Face cache, hub."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from neuroal.data.sets import DataSet, data_set
from neuroal.errors import UserError
from neuroal.hub import unreachable

Row = Mapping[str, Any]
SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".parquet")


class JsonLines(Sequence[Row]):
    """Rows of a .jsonl or .jsonl.gz file, parsed when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        self._lines = [line for line in content.split(b"\n") if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        try:
            row: Row = json.loads(self._lines[index])
        except ValueError as error:
            raise UserError(
                f"{self._path}: row {index + 1} is no JSON ({error}); mend it or fetch it anew"
            ) from error
        return row


@dataclass(frozen=True, eq=False)
class Found:
    """Rows and where they came from.

    Attributes:
        files: one or more files, in order, all of one kind.
        origin: what to write into a record: the folder, or ``REPOSITORY@REVISION``.
    """

    files: tuple[Path, ...]
    origin: str

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The rows, in the order of the files.

        Raises:
            UserError: a file is damaged.
        """
        try:
            parts = [_read(path) for path in self.files]
        except (OSError, EOFError, ValueError) as error:
            raise UserError(
                f"data: {', '.join(map(str, self.files))}: cannot be read ({error}); "
                "delete it and fetch it anew"
            ) from error
        return parts[0] if len(parts) == 1 else [row for part in parts for row in part]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, whatever the form of the files."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def find_rows(name: str, split: str, root: str | None) -> Found:
    """Rows of split `split` of data set `name`.

    Looked for in the folder `root`, then in the Hugging Face cache, then on the hub, from which
    they are downloaded into that cache. A hub out of reach is noticed at once.

    Raises:
        UserError: one line that says what was looked for and where, and the command that helps.
    """
    known = data_set(name)
    found = in_folder(known, split, root) or in_cache(known, split)
    if found is not None:
        return found
    why = "it is not on the hub" if known.repo is None else unreachable()
    if why is None:
        try:
            return from_hub(known, split)
        except Exception as error:  # the client raises many kinds; all end in the same advice
            why = (str(error).strip() or repr(error)).splitlines()[0]
    raise UserError(_missing(name, known, split, root, why))


def in_folder(known: DataSet, split: str, root: str | None) -> Found | None:
    """The split in a folder of local data sets, if it is there."""
    if root is None:
        return None
    folder = Path(root) / known.folder
    for suffix in SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return Found((path,), str(folder))
    copies = _matching(folder, known.files.get(split))
    return Found(copies, str(folder)) if copies else None


def in_cache(known: DataSet, split: str) -> Found | None:
    """The split in the Hugging Face cache, if it is there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if known.repo is None or split not in known.files:
        return None
    try:
        return _snapshot(known, split, offline=True)
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None


def from_hub(known: DataSet, split: str) -> Found:
    """The split, downloaded into the Hugging Face cache (HF_TOKEN opens gated repositories).

    Raises:
        UserError: the repository has no such file.
    """
    found = _snapshot(known, split, offline=False)
    if found is None:
        raise UserError(f"{known.repo} has no file {known.files[split]}")
    return found


def _snapshot(known: DataSet, split: str, offline: bool) -> Found | None:
    from huggingface_hub import snapshot_download

    pattern = known.files[split]
    folder = Path(
        snapshot_download(
            str(known.repo),
            repo_type="dataset",
            revision=known.revision,
            allow_patterns=[pattern],
            local_files_only=offline,
        )
    )
    files = _matching(folder, pattern)
    return Found(files, f"{known.repo}@{folder.name}") if files else None


def _matching(folder: Path, pattern: str | None) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob(pattern))) if pattern else ()


def _read(path: Path) -> Sequence[Row]:
    if path.suffix != ".parquet":
        return JsonLines(path)
    from pyarrow import parquet

    rows: Sequence[Row] = parquet.read_table(path).to_pylist()
    return rows


def _missing(name: str, known: DataSet, split: str, root: str | None, why: str) -> str:
    there = ", ".join(sorted(_splits(Path(root) / known.folder))) if root else ""
    folder = f"data.root={root}" + (f" (there: {there})" if there else "")
    looked = f"no {known.folder}/{split}.jsonl.gz in {folder}" if root else "data.root is not set"
    if known.repo is None:
        return f"data set {name}, split {split}: {looked}, and {why}; give data.root=FOLDER"
    command = f"neuroal-data fetch {name}" + (f" --root {root}" if root else "")
    return (
        f"data set {name}, split {split}: {looked}, nothing of {known.repo} in the Hugging Face "
        f"cache, and the hub does not give it ({why}); where there is network: {command}"
    )


def _splits(folder: Path) -> Iterator[str]:
    for path in folder.iterdir() if folder.is_dir() else ():
        for suffix in SUFFIXES:
            if path.name.endswith(suffix):
                yield path.name.removesuffix(suffix)
                break
