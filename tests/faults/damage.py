"""Faults: files that are truncated, emptied, or hold flipped bits or noise."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from neuroal.errors import UserError
from neuroal.files.lock import LEASE, this_process
from neuroal.tables.reading import read_records
from neuroal.tables.selection import Selection
from tests.faults.rig import LINE, Injection, Rig, survive

Damage = Callable[[bytes, random.Random], bytes]


def truncated(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def emptied(data: bytes, generator: random.Random) -> bytes:
    return b""


def flipped(data: bytes, generator: random.Random) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def noise(data: bytes, generator: random.Random) -> bytes:
    return generator.randbytes(len(data))


def other_json(data: bytes, generator: random.Random) -> bytes:
    """Return JSON of another form."""
    return generator.choice([b"null", b"[]", b"{}", b"1", b'"text"', b"[" * 100_000])


KINDS: dict[str, tuple[Damage, int]] = {
    "truncated": (truncated, 10),
    "emptied": (emptied, 1),
    "bit flipped": (flipped, 14),
    "noise": (noise, 2),
    "other JSON": (other_json, 5),
}
"""Name of a kind of damage → function, and number of injections into every file."""
FILES = {
    "state: plan": ("interrupted", "out/state/*.plan"),
    "state: masks": ("interrupted", "out/state/*.masks.npz"),
    "record": ("finished", "out/*.json"),
    "saved masks": ("finished", "out/*.masks.npz"),
    "summary": ("finished", "out/state/*.summary"),
    "contents of inputs": ("finished", "out/state/inputs/*"),
    "cached results": ("interrupted", "out/measured/*.json"),
    "saved plan": ("finished", "plan.json"),
    "manifest of a saved model": ("finished", "model/neuroal.json"),
}
"""Name of a file → the state of the run it belongs to, and its path."""


def damaged_files(seed: int) -> Iterator[Injection]:
    """Yield injections of every kind of damage into every file."""
    for file in FILES:
        for kind, (_, count) in KINDS.items():
            for number in range(count):
                variant = ("disk", "updates")[number % 2]
                run = partial(_damage, file=file, kind=kind, variant=variant, seed=seed + number)
                yield Injection(f"damaged file: {file}", f"{kind} {number}", run)


def _damage(rig: Rig, folder: Path, file: str, kind: str, variant: str, seed: int) -> str:
    state, pattern = FILES[file]
    (rig.interrupted if state == "interrupted" else rig.finished)(variant, folder)
    path = next(iter(sorted(folder.glob(pattern))))
    path.write_bytes(KINDS[kind][0](path.read_bytes(), random.Random(f"{file} {kind} {seed}")))
    rig.check_status(variant, folder)
    if state == "finished":
        _read_by_tables(folder)

    def remedy() -> None:
        saved = folder / "model"
        saved.rename(folder / "moved") if file.startswith("manifest") else path.unlink()

    return survive(rig, variant, folder, remedy=remedy)


def _read_by_tables(folder: Path) -> None:
    """Read the records as ``neuroal-tables`` does: it may refuse them, in one line."""
    with suppress(UserError):
        read_records(folder / "out", Selection(limited=True))


def locks(seed: int) -> Iterator[Injection]:
    """Yield injections of lock files: damaged, of dead processes, of the past and the future."""
    generator = random.Random(seed)
    for kind in KINDS:
        for number in range(4):
            age = generator.choice([0.0, 2 * LEASE, -1e5])
            run = partial(_damaged_lock, kind=kind, age=age, seed=number)
            yield Injection("damaged lock", f"{kind}, {age:g} s old", run)
    for age in (-1e9, -86400.0, -2 * LEASE, 2 * LEASE, 1e9):
        for machine in ("here", "another"):
            run = partial(_old_lock, age=age, machine=machine)
            yield Injection("lock of another time", f"{machine}, {age:g} s old", run)


def _lock_file(rig: Rig, folder: Path, data: bytes, age: float) -> Path:
    """Write the lock file of the run in `folder`, renewed `age` seconds ago."""
    rig.interrupted("updates", folder)
    (plan,) = (folder / "out" / "state").glob("*.plan")
    path = plan.with_name(f"{plan.stem}.lock.0")
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


def _damaged_lock(rig: Rig, folder: Path, kind: str, age: float, seed: int) -> str:
    data = KINDS[kind][0](this_process().encode(), random.Random(f"{kind} {seed}"))
    path = _lock_file(rig, folder, data, age)

    def wait() -> None:
        os.utime(path, (time.time() - 2 * LEASE,) * 2)

    way = survive(rig, "updates", folder, remedy=wait, foreign=path.name)
    assert way != LINE or abs(age) < LEASE, "a lock blocked for longer than its lease"
    return way


def _old_lock(rig: Rig, folder: Path, age: float, machine: str) -> str:
    text = this_process() if machine == "here" else '{"machine": "x", "process": 1, "started": "1"}'
    _lock_file(rig, folder, text.encode(), age)
    way = survive(rig, "updates", folder)
    assert way != LINE, "a lock blocked for longer than its lease"
    return way
