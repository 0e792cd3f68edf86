"""Digests of files, cached so that an unchanged file is read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from neuroal.files.atomic import write_json

LEAST_CACHED = 2**20
"""Size in bytes from which the digest of a file is cached on disk."""
SETTLED = 2.0
"""Seconds after its last change from which a file's digest is cached.

Two changes within the resolution of a file system's clock leave the same modification time.
"""
THREADS = 8


def cache_folder() -> Path:
    """Return the user's folder of cached digests, ``~/.cache/neuroal/digests`` by default."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "neuroal" / "digests"


def is_file(path: str) -> bool:
    """Return whether `path` names a file; False for text that is not a valid path."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str) -> bool:
    """Return whether `path` names a folder; False for text that is not a valid path."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def digest_of_file(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a file's content.

    The digest of a large file is cached by path, size, modification time and inode.

    Raises:
        OSError: the file cannot be read.
    """
    stat = os.stat(path)
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if stat.st_size < LEAST_CACHED or time.time() - stat.st_mtime < SETTLED:
        return _read(str(path))
    return _cached(str(Path(path).absolute()), state)


def digests_of_files(paths: Iterable[Path]) -> list[str]:
    """Return `digest_of_file` of each path, in order; files are read in parallel.

    Raises:
        OSError: a file cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(digest_of_file, paths))


@lru_cache(maxsize=4096)
def _cached(path: str, state: tuple[int, int, int]) -> str:
    """Return the digest of the file at `path` in the given state, from the cache if possible."""
    entry = cache_folder() / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
    try:
        content = json.loads(entry.read_text())
        if content["path"] == path and tuple(content["state"]) == state:
            return str(content["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no valid entry: read the file
    digest = _read(path)
    with suppress(OSError):  # the cache only saves time, and the folder may be read-only
        write_json(entry, {"path": path, "state": state, "sha256": digest})
    return digest


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
