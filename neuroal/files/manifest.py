"""The file ``neuroal.json`` of a saved model: the run that wrote the folder, and its files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from neuroal.files.atomic import write_json
from neuroal.files.sealed import DAMAGE

MANIFEST = "neuroal.json"


@dataclass(frozen=True)
class Manifest:
    """Content of ``neuroal.json``.

    Attributes:
        identity: identity of the run that wrote the folder.
        complete: False while the folder is being written.
        files: relative path → size in bytes of every other file; empty while being written.
        format: layout of the matrices, ``dense`` or ``compressed``.
    """

    identity: str
    complete: bool = False
    files: Mapping[str, int] = field(default_factory=dict)
    format: str = "dense"

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read the manifest of `folder`; return None if it has none."""
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            identity, complete = str(content["identity"]), content["complete"] is True
            files = {str(name): int(size) for name, size in content.get("files", {}).items()}
            if not all(map(_is_inside, files)):
                return None  # edited: deleting these files would reach out of the folder
        except (OSError, *DAMAGE):
            return None
        return cls(identity, complete, files, str(content.get("format", "dense")))

    @classmethod
    def of(cls, folder: Path, identity: str, format: str = "dense") -> Manifest:
        """Return the manifest of the finished `folder`, whose files are on the disk afterwards."""
        sizes = {}
        for name in _files_in(folder):
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())
            sizes[name] = (folder / name).stat().st_size
        return cls(identity, complete=True, files=sizes, format=format)

    def write(self, folder: Path) -> None:
        """Write this manifest to `folder`, atomically."""
        write_json(folder / MANIFEST, {**vars(self), "files": dict(self.files)})

    def is_complete(self, folder: Path) -> bool:
        """Return whether `folder` holds every file as it was written."""
        return self.complete and all(_size(folder / n) == size for n, size in self.files.items())

    def changed(self, folder: Path) -> list[str]:
        """Return the files of `folder` whose size is not the one that was written."""
        sizes = {name: _size(folder / name) for name in self.files}
        return [n for n, size in sizes.items() if size not in (None, self.files[n])]

    def strangers(self, folder: Path) -> list[str]:
        """Return the files of `folder` that the run did not write."""
        return [name for name in _files_in(folder) if name not in self.files]


def _is_inside(name: str) -> bool:
    """Return whether the relative path `name` stays inside its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _files_in(folder: Path) -> Iterator[str]:
    """Yield the relative path of every file and link below `folder`, except the manifest."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST and (path.is_symlink() or not path.is_dir()):
            yield name


def _size(path: Path) -> int | None:
    """Return the size of a regular file, -1 for anything else, and None if there is nothing."""
    if path.is_file() and not path.is_symlink():
        return path.stat().st_size
    return -1 if os.path.lexists(path) else None


def remove_written(folder: Path) -> None:
    """Delete the files of `folder` that its manifest lists, then the folder if it is empty.

    A folder whose manifest is incomplete was never finished, so all its files are NeuroAL's.
    """
    manifest = Manifest.read(folder)
    if manifest is not None and not manifest.complete:
        shutil.rmtree(folder)
        return
    for name in manifest.files if manifest else ():
        (folder / name).unlink(missing_ok=True)
    if not (manifest and manifest.strangers(folder)):
        (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()
