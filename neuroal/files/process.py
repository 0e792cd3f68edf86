"""Processes: who wrote a file, and whether that process still runs on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

LONGEST_NAME = 150
"""Number of characters of a file's name that a temporary name repeats; file systems allow 255."""
DAY = 86400.0
"""Seconds after which a temporary file of another machine counts as abandoned."""
WRITER = re.compile(
    "(?P<machine>[0-9a-f]{12})-(?P<process>[0-9]+)-(?P<started>[0-9a-z]+)-[0-9a-f]{12}"
)
"""End of a temporary name: who writes the file, and a random number."""


@cache
def machine() -> str:
    """Return a name for this boot of this machine and its PID namespace (container)."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("no /proc")  # the host name alone must suffice
    return " ".join(parts)


def started(process: int) -> str | None:
    """Return the start time of a local process; None if it has ended.

    The start time distinguishes the process from a later one with the same number.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter: ended while being read
        return None if Path("/proc/self/stat").exists() else _alive(process)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _alive(process: int) -> str | None:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # the process belongs to another user
    return "alive"


def temporary_path(path: Path) -> Path:
    """Return a new hidden name beside `path`, which names this process."""
    writer = f"{_machine_digest()}-{os.getpid()}-{started(os.getpid())}"
    return path.with_name(f"{_beginning(path)}{writer}-{uuid.uuid4().hex[:12]}")


def is_temporary(path: Path) -> bool:
    """Return whether `temporary_path` made the name of `path`."""
    return WRITER.fullmatch(path.name.rpartition(".")[2]) is not None


def remove_abandoned(path: Path, *, own: bool = False, foreign: bool = False) -> None:
    """Delete the files and folders named by `temporary_path` whose process has ended.

    Args:
        path: the path that they were made for.
        own: also delete those of this process.
        foreign: also delete those of other machines; else only if they are older than a `DAY`.
    """
    beginning = _beginning(path)
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(beginning) and _is_abandoned(
                entry, entry.name.removeprefix(beginning), own, foreign
            ):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _beginning(path: Path) -> str:
    return f".{path.name[:LONGEST_NAME]}."


def _is_abandoned(entry: os.DirEntry[str], writer: str, own: bool, foreign: bool) -> bool:
    names = WRITER.fullmatch(writer)
    if names is None:
        return False
    digest, number, start = names["machine"], int(names["process"]), names["started"]
    if digest != _machine_digest():
        return foreign or time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
    return started(number) != start or (own and number == os.getpid())


@cache
def _machine_digest() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:12]
