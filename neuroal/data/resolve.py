"""Find the rows of a data set: in a local folder, in the Hugging Face cache, or on the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neuroal.data.hub import unreachable
from neuroal.data.sets import DataSet, data_set
from neuroal.errors import UserError, first_line

Row = Mapping[str, Any]
SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".parquet")


class JsonLines(Sequence[Row]):
    """Rows of a .jsonl or .jsonl.gz file, parsed on access."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
        self._lines = [line for line in content.split(b"\n") if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        try:
            return json.loads(self._lines[index])
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self._path}: row {index + 1} is not JSON ({first_line(error)}); repair the "
                "file or fetch it again"
            ) from error


@dataclass(frozen=True, eq=False)
class DataSplit:
    """Rows of one split of a data set, in files of the same format, and their origin."""

    files: tuple[Path, ...]
    origin: str
    """Folder or ``REPOSITORY@REVISION``, as written into records."""

    @cached_property
    def rows(self) -> Sequence[Row]:
        try:
            parts = [_read(path) for path in self.files]
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(
                f"data: {', '.join(map(str, self.files))}: cannot be read ({first_line(error)}); "
                "delete it and fetch it again"
            ) from error
        return parts[0] if len(parts) == 1 else [row for part in parts for row in part]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, independent of the file format."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def find_rows(name: str, split: str, root: str | None) -> DataSplit:
    """Return the rows of split `split` of data set `name`.

    Searches the folder `root` (``data.root``), then the Hugging Face cache, then the hub, and
    downloads rows from the hub into the cache.
    """
    source = data_set(name)
    data = in_folder(source, split, root) or in_cache(source, split)
    if data is not None:
        return data
    reason = "it is not on the hub" if source.repo is None else unreachable()
    if reason is None:
        try:
            return from_hub(source, split)
        except Exception as error:  # the client raises many types; the remedy is the same for all
            reason = first_line(error)
    raise UserError(_missing(name, source, split, root, reason))


def in_folder(source: DataSet, split: str, root: str | None) -> DataSplit | None:
    """Return the split from the folder `root` of local data sets; None if it is not there."""
    if root is None:
        return None
    folder = Path(root) / source.folder
    for suffix in SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return DataSplit((path,), str(folder))
    copies = _matching(folder, source.files.get(split))
    return DataSplit(copies, str(folder)) if copies else None


def in_cache(source: DataSet, split: str) -> DataSplit | None:
    """Return the split from the Hugging Face cache; None if it is not there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if source.repo is None or split not in source.files:
        return None
    try:
        return _snapshot(source, split, offline=True)
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None


def from_hub(source: DataSet, split: str) -> DataSplit:
    """Download the split into the cache; HF_TOKEN gives access to gated repositories."""
    data = _snapshot(source, split, offline=False)
    if data is None:
        raise UserError(f"{source.repo} has no file {source.files[split]}")
    return data


def _snapshot(source: DataSet, split: str, offline: bool) -> DataSplit | None:
    from huggingface_hub import snapshot_download

    pattern = source.files[split]
    path = snapshot_download(
        str(source.repo),
        repo_type="dataset",
        revision=source.revision,
        allow_patterns=[pattern],
        local_files_only=offline,
    )
    folder = Path(path)
    files = _matching(folder, pattern)
    return DataSplit(files, f"{source.repo}@{folder.name}") if files else None


def _matching(folder: Path, pattern: str | None) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob(pattern))) if pattern else ()


def _read(path: Path) -> Sequence[Row]:
    if path.suffix != ".parquet":
        return JsonLines(path)
    from pyarrow import parquet

    rows: Sequence[Row] = parquet.read_table(path).to_pylist()
    return rows


def _missing(name: str, source: DataSet, split: str, root: str | None, reason: str) -> str:
    there = ", ".join(sorted(_splits(Path(root) / source.folder))) if root else ""
    folder = f"data.root={root}" + (f" (there: {there})" if there else "")
    local = f"no {source.folder}/{split}.jsonl.gz in {folder}" if root else "data.root is not set"
    if source.repo is None:
        return f"data set {name}, split {split}: {local}, and {reason}; give data.root=FOLDER"
    command = f"neuroal-data fetch {name}" + (f" --root {root}" if root else "")
    return (
        f"data set {name}, split {split}: {local}, nothing of {source.repo} in the Hugging Face "
        f"cache, and the hub does not provide it ({reason}); with network access: {command}"
    )


def _splits(folder: Path) -> Iterator[str]:
    for path in folder.iterdir() if folder.is_dir() else ():
        for suffix in SUFFIXES:
            if path.name.endswith(suffix):
                yield path.name.removesuffix(suffix)
                break
