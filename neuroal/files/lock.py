"""A lock between processes on one or many machines, in a shared file system.

The only requirement is that creating a hard link is atomic and fails if the name exists, as on
NFS. A process never deletes a lock that another process might hold. A lock NAME is a sequence of
files NAME.0, NAME.1, …. The last file names the holder, and its modification time shows that the
holder is alive. A process that takes over from a dead holder adds the next file. A damaged lock
file counts as that of another machine: it is free once its lease has expired.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from neuroal.files.atomic import open_own
from neuroal.files.process import machine, remove_abandoned, started, temporary_path

LEASE = 120.0
"""Seconds without renewal after which a lock is free again, because its holder or its machine has
died. If the holder ran on this machine, its death is detected immediately."""


@contextmanager
def leased(path: Path, lease: float = LEASE) -> Iterator[bool]:
    """Hold the lock `path` if it is free, and renew it until the block ends.

    If a holder is suspended for longer than `lease`, another process may take over. The work inside
    must therefore be idempotent, such as an atomic write of a result.

    Yields:
        Whether this process holds the lock. If not, another process holds it; try again later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        generation = _take(path, lease)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    if generation is None:
        yield False
        return
    done = threading.Event()
    mine = _file(path, generation)
    renewal = threading.Thread(target=_renew, args=(mine, lease / 4, done), daemon=True)
    try:
        renewal.start()
        yield True
    finally:
        try:
            done.set()
            if renewal.ident is not None:
                renewal.join()
        finally:  # also if a signal ends the process while it waits
            _release(path, generation)


def is_held(path: Path, lease: float = LEASE) -> bool:
    """Return whether a living process holds the lock by this machine's clock; change nothing."""
    _, holder = _last(path)
    return holder is not None and not holder.is_dead(time.time(), lease)


@dataclass(frozen=True)
class Holder:
    """The process that wrote a lock file."""

    text: str
    """Content of the lock file."""
    renewed: float
    """Time of the last renewal, in seconds by the file system's clock."""

    @classmethod
    def read(cls, file: Path) -> Holder | None:
        try:
            with open_own(file) as opened:
                text = opened.read().decode(errors="replace")
                return cls(text, os.fstat(opened.fileno()).st_mtime)
        except FileNotFoundError:
            return None

    def is_dead(self, now: float, lease: float) -> bool:
        """Return whether the lease has expired or the process, if on this machine, has ended."""
        if abs(now - self.renewed) > lease:
            return True  # also if the time lies in the future, which no renewal can have written
        owner = _owner(self.text)
        return owner is not None and started(owner.process) != owner.started


@dataclass(frozen=True)
class _Owner:
    """A process of this machine."""

    process: int
    started: str | None


def _owner(text: str) -> _Owner | None:
    """Return the process that a lock file names, if it is of this machine and undamaged."""
    try:
        fields = json.loads(text)
        if fields["machine"] != machine():
            return None
        return _Owner(int(fields["process"]), fields["started"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _take(path: Path, lease: float) -> int | None:
    """Add the next lock file unless a living process holds the last; return its number, or None."""
    remove_abandoned(path)
    probe, generation = temporary_path(path), 0
    try:
        with probe.open("x") as file:
            file.write(this_process())
        generation, last = _last(path)
        if last is not None and not last.is_dead(probe.stat().st_mtime, lease):
            return None
        if not _link(probe, _file(path, generation)):
            return None
    except FileNotFoundError:
        return None  # the holder released the lock just now, and removed the folder or our probe
    except BaseException:  # a signal that ends the process just after it made the link
        with suppress(OSError):
            if probe.exists() and probe.samefile(_file(path, generation)):
                _file(path, generation).unlink()
        raise
    finally:
        probe.unlink(missing_ok=True)
    if last is not None and Holder.read(_file(path, generation - 1)) != last:
        # The holder renewed its lease, or a successor came and released the lock: our file is void.
        _file(path, generation).unlink(missing_ok=True)
        return None
    return generation


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        # NFS may lose the reply to a link that succeeded; the number of links shows the result.
        if source.stat().st_nlink != 2:
            raise
    return True


def _release(path: Path, generation: int) -> None:
    if _file(path, generation + 1).exists():
        return  # taken over while we were suspended: the successor deletes the files
    for number in range(generation + 1):
        _file(path, number).unlink(missing_ok=True)


def _renew(file: Path, interval: float, done: threading.Event) -> None:
    while not done.wait(interval):
        try:
            os.utime(file, follow_symlinks=False)
        except OSError:
            return  # taken over, or the folder is deleted: there is nothing to renew


def _last(path: Path) -> tuple[int, Holder | None]:
    """Return the number of the next lock file, and the holder that the last file names."""
    last = None
    for number in count():
        holder = Holder.read(_file(path, number))
        if holder is None:
            return number, last
        last = holder
    raise AssertionError("unreachable")


def _file(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation}")


def this_process() -> str:
    """Return the content of a lock file of this process."""
    owner = {"machine": machine(), "process": os.getpid(), "started": started(os.getpid())}
    return json.dumps({**owner, "token": uuid.uuid4().hex})
