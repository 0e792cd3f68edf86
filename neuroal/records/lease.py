"""A lock that one of several processes, on one or many machines, holds while it does some work.

It asks of the file system only that making a hard link is atomic and fails where the name is taken,
which NFS grants, and it never deletes a lock that another process might hold. A lock NAME is a row
of files NAME.0, NAME.1, …: the last one names the holder, its time of change says that the holder
lives, and who takes over from a dead holder adds the next one.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

LEASE = 120.0
"""Seconds after which a lock that nobody renews is free again: its holder was killed, or its
machine died. A holder killed on this machine is noticed at once."""


@contextmanager
def leased(path: Path, lease: float = LEASE) -> Iterator[bool]:
    """Hold the lock `path` if it is free, and renew it until the block ends.

    A holder that was stopped for longer than `lease` and wakes up may find that another one took
    over: what is done inside must bear being done twice, as an atomic write of one result does.

    Yields:
        Whether this process holds it. If not, another one does: come again later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    generation = _take(path, lease)
    if generation is None:
        yield False
        return
    done = threading.Event()
    mine = _file(path, generation)
    renewal = threading.Thread(target=_renew, args=(mine, lease / 4, done), daemon=True)
    renewal.start()
    try:
        yield True
    finally:
        done.set()
        renewal.join()
        _release(path, generation)


def is_held(path: Path, lease: float = LEASE, now: float | None = None) -> bool:
    """Whether somebody who lives holds the lock; a look, which changes nothing.

    Args:
        path: of the lock.
        lease: as in `leased`.
        now: time by the clock of the file system; None: this machine's.
    """
    _, holder = _last(path)
    if holder is None:
        return False
    return not holder.is_dead(time.time() if now is None else now, lease)


@dataclass(frozen=True)
class Holder:
    """Who wrote a lock file, and when it was renewed last (seconds, the file system's clock)."""

    text: str
    renewed: float

    @classmethod
    def read(cls, file: Path) -> Holder | None:
        try:
            return cls(file.read_text(), file.stat().st_mtime)
        except FileNotFoundError:
            return None

    def is_dead(self, now: float, lease: float) -> bool:
        """Not renewed for `lease` seconds, or a process of this machine that is gone."""
        if now - self.renewed > lease:
            return True
        who = json.loads(self.text)
        here = bool(who["machine"] == _machine())
        return here and _started(who["process"]) != who["started"]


def _take(path: Path, lease: float) -> int | None:
    """Add the next lock file if nobody lives who holds the last; returns its number."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        probe.write_text(_self())
        generation, last = _last(path)
        if last is not None and not last.is_dead(probe.stat().st_mtime, lease):
            return None
        if not _link(probe, _file(path, generation)):
            return None
    except FileNotFoundError:
        return None  # the holder tidied up after itself, our probe too: it was at it until now
    finally:
        probe.unlink(missing_ok=True)
    if last is not None and Holder.read(_file(path, generation - 1)) != last:
        # The holder was not dead, or its successor came and went: the row we joined is gone.
        _file(path, generation).unlink(missing_ok=True)
        return None
    return generation


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        # Over NFS the answer to a link that was made may get lost; the count of names tells.
        if source.stat().st_nlink != 2:
            raise
    return True


def _release(path: Path, generation: int) -> None:
    if _file(path, generation + 1).exists():
        return  # taken over while we were stopped: the successor clears the row
    for number in range(generation + 1):
        _file(path, number).unlink(missing_ok=True)


def _renew(file: Path, every: float, done: threading.Event) -> None:
    while not done.wait(every):
        try:
            os.utime(file)
        except OSError:
            return  # somebody else's by now, or its folder is gone: there is nothing to renew


def _last(path: Path) -> tuple[int, Holder | None]:
    """Number of the next lock file, and the holder that the last one names."""
    last = None
    for number in count():
        found = Holder.read(_file(path, number))
        if found is None:
            return number, last
        last = found
    raise AssertionError("unreachable")


def _file(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation}")


def _self() -> str:
    who = {"machine": _machine(), "process": os.getpid(), "started": _started(os.getpid())}
    return json.dumps({**who, "token": uuid.uuid4().hex})


@cache
def _machine() -> str:
    """This machine since its last start, and its space of process numbers (containers)."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("no /proc")  # then the name has to do
    return " ".join(parts)


def _started(process: int) -> str | None:
    """When a process of this machine began, which tells it from a later one of its number."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _alive(process)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _alive(process: int) -> str | None:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
