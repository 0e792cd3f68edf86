"""Faults of the file system: full, read-only, failing, or with folders that vanish."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from neuroal.cli.tables import tables_command
from neuroal.errors import UserError
from tests.faults.operations import at_operation, count_operations
from tests.faults.rig import LINE, VARIANTS, Injection, Rig, judge, survive

PAGE = 4096
ERRORS = {
    "full disk": errno.ENOSPC,
    "read-only file system": errno.EROFS,
    "input/output error": errno.EIO,
    "no permission": errno.EACCES,
}
FREQUENT = ("full disk", "read-only file system")
"""Errors that are raised in every operation; the others in every second."""


def failing_operations(rig: Rig) -> Iterator[Injection]:
    """Yield every error in every file operation of a run, once or from then on."""
    for variant in VARIANTS:
        folder = rig.root / f"count-{variant}"
        last = count_operations(folder, lambda v=variant, f=folder: rig.call(v, f))  # type: ignore[misc]
        for fault, number in ERRORS.items():
            for point in range(1, last + 1, 1 if fault in FREQUENT else 2):
                onward = (point + number) % 2 == 0
                run = partial(_fail, variant=variant, number=number, point=point, onward=onward)
                yield Injection(f"{fault} at a file operation", f"{variant} {point}", run)
        for point in range(1, last + 1):
            run = partial(_remove_out, variant=variant, point=point)
            yield Injection("out removed during a run", f"{variant} {point}", run)


def _fail(rig: Rig, folder: Path, variant: str, number: int, point: int, onward: bool) -> str:
    def fail(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    folder.mkdir()
    return survive(rig, variant, folder, lambda: at_operation(point, folder, fail, onward))


def _remove_out(rig: Rig, folder: Path, variant: str, point: int) -> str:
    out = folder / "out"
    folder.mkdir()

    def remove(path: str) -> None:
        shutil.rmtree(out, ignore_errors=True)

    return survive(rig, variant, folder, lambda: at_operation(point, folder, remove))


def can_mount() -> bool:
    """Return whether this process may mount file systems."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and _mounts()


def _mounts() -> bool:
    with tempfile.TemporaryDirectory() as probe:  # of its own, as processes of tests ask at once
        ok = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", probe], capture_output=True)
        if ok.returncode == 0:
            subprocess.run(["umount", probe], check=True)
    return ok.returncode == 0


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a file system on `folder` inside the context."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(rig: Rig) -> Iterator[Injection]:
    """Yield runs on a disk with 0, 1, 2, … free pages, until there is space for the run."""
    for variant in VARIANTS:
        files = [p for p in (rig.root / variant).rglob("*") if p.is_file()]
        pages = sum(-(-path.stat().st_size // PAGE) for path in files) + 16
        for free in range(0, pages, 3):
            run = partial(_fill, variant=variant, free=free)
            yield Injection("full disk (tmpfs)", f"{variant}, {free} pages free", run)


def _fill(rig: Rig, folder: Path, variant: str, free: int) -> str:
    with mounted(folder, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        filler, space = folder / "filler", os.statvfs(folder)
        filler.write_bytes(bytes(max(space.f_bavail - free, 0) * PAGE))
        return survive(rig, variant, folder, remedy=filler.unlink)


def read_only(rig: Rig) -> Iterator[Injection]:
    """Yield uses of a folder of records that cannot be written."""
    for variant in VARIANTS:
        for part in ("out", "out/state"):
            for again in (False, True):
                run = partial(_read_only, variant=variant, part=part, again=again)
                yield Injection("read-only out", f"{variant} {part}", run)


def _read_only(rig: Rig, folder: Path, variant: str, part: str, again: bool) -> str:
    rig.finished(variant, folder)
    if again:
        next((folder / "out").glob("*.json")).unlink()
    target = str(folder / part)
    with mounted(folder / part, "--bind", target):
        subprocess.run(["mount", "-o", "remount,ro,bind", target], check=True)
        rig.check_status(variant, folder)
        if not again:
            _tables_refuse_only_writing(folder, part)
        code, error = rig.call(variant, folder)
        way = judge(code, error)
        assert way == (LINE if again or part == "out" else way), error
    rig.check_restart(variant, folder)
    return way


def _tables_refuse_only_writing(folder: Path, part: str) -> None:
    """Make tables of records that cannot be written, in another folder."""
    target = folder / "tables"
    with redirect_stdout(StringIO()):
        tables_command(["paper", f"out={folder / 'out'}", "--limited", f"--to={target}"])
    assert any(target.iterdir())
    shutil.rmtree(target)
    if part == "out":
        with pytest.raises(UserError, match="--to FOLDER"):
            tables_command(["paper", f"out={folder / 'out'}", "--limited"])
