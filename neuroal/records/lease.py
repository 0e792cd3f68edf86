"""A lock that one of several processes, on one or many machines, holds while it does some work."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEASE = 120.0
"""Seconds after which a lock that nobody renews is free again (its holder was killed)."""


@contextmanager
def leased(path: Path, lease: float = LEASE) -> Iterator[bool]:
    """Hold the lock file `path` if it is free, and renew it until the block ends.

    The lock is a file that exactly one process can create; its time of change says that the holder
    lives. It needs nothing of the file system but that. Two processes that take over a dead
    holder's lock in the same instant may both hold it: what is done inside must bear being done
    twice, as an atomic write of the same result does.

    Yields:
        Whether this process holds it. If not, another one does: come again later.
    """
    if not _take(path, lease):
        yield False
        return
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, lease / 4, done), daemon=True)
    renewal.start()
    try:
        yield True
    finally:
        done.set()
        renewal.join()
        path.unlink(missing_ok=True)


def _take(path: Path, lease: float) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if time.time() - path.stat().st_mtime > lease:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # free
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
    return True


def _renew(path: Path, every: float, done: threading.Event) -> None:
    while not done.wait(every):
        try:
            os.utime(path)
        except OSError:
            return  # somebody else's by now, or its folder is gone: there is nothing to renew
