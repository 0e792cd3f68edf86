"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def is_file(path: str) -> bool:
    """Return whether `path` names a file; False for text that is not a valid path."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def digest_of_file(path: str) -> str:
    """Return the SHA-256 (hex) of a file's content, or `path` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return path  # the run reports the error when it reads the file
