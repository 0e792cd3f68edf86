"""Faults of processes: killed, terminated, interrupted, suspended, or started together."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from neuroal.cli import main as command
from neuroal.cli.application import exit_with
from neuroal.errors import UserError
from neuroal.files.lock import leased
from neuroal.grid.status import RunState
from neuroal.grid.worker import attempt
from neuroal.records import dense_cache, resume
from tests.faults.operations import at_operation
from tests.faults.rig import LINE, REPAIRED, VARIANTS, Injection, Rig, judge, temporary

CONTEXT = multiprocessing.get_context("fork")  # processes inherit the imported torch
LEASE = 1.0
"""Seconds of a lease in the tests of suspended processes."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LIMIT = 120
"""Seconds after which a process hangs."""


def start(work: Callable[[], object], folder: Path) -> multiprocessing.process.BaseProcess:
    """Call `work` in a process whose error output goes to FOLDER/error; wait until it begins."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = CONTEXT.Event()

    def begin() -> None:
        torch.set_num_threads(1)  # create the thread pool before threads of a loader race for it
        with (folder / "error").open("a") as error:
            os.dup2(error.fileno(), 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

            def announced() -> None:
                begun.set()
                work()

            exit_with(announced)

    process = CONTEXT.Process(target=begin)
    process.start()
    assert begun.wait(LIMIT)
    return process


def _send(process: multiprocessing.process.BaseProcess, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(process.pid or 0, number)


def end(process: multiprocessing.process.BaseProcess) -> int:
    """Wait for a process; return its exit code."""
    process.join(LIMIT)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the process hangs")
    return process.exitcode


def signals(seed: int, count: int = 24) -> Iterator[Injection]:
    """Yield every signal at random moments of a run, and SIGKILL at random file operations."""
    generator = random.Random(seed)
    for number in SIGNALS:
        for index in range(count):
            variant, delay = ("disk", "updates")[index % 2], generator.uniform(0, 1)
            run = partial(_signalled, variant=variant, number=number, delay=delay)
            yield Injection(number.name, f"{variant} after {delay:.3f} of its time", run)
    for variant in VARIANTS:
        for point in generator.sample(range(1, 60), count // 2):
            run = partial(_killed_at, variant=variant, point=point)
            yield Injection("SIGKILL at a file operation", f"{variant} {point}", run)


def _seconds(rig: Rig, variant: str) -> float:
    """Return how long an undisturbed run takes now."""
    begin = time.perf_counter()
    folder = rig.root / f"timed-{variant}-{time.monotonic_ns()}"
    rig.call(variant, folder)
    return time.perf_counter() - begin


def _signalled(rig: Rig, folder: Path, variant: str, number: signal.Signals, delay: float) -> str:
    seconds = _seconds(rig, variant) * delay
    config = rig.config(variant, folder)
    process = start(lambda: command._prune(config), folder)
    time.sleep(seconds)
    _send(process, number)
    code, error = end(process), (folder / "error").read_text()
    way = "killed" if code == -number else judge(code, error)
    assert number is signal.SIGKILL or way != "killed", "ended without cleaning up"
    if way != "killed":
        assert not temporary(folder), f"left: {temporary(folder)}"
        assert code in (0, 128 + number), f"exit code {code}: {error}"
    rig.check_status(variant, folder)
    (folder / "error").unlink()
    rig.check_restart(variant, folder)
    return way


def _killed_at(rig: Rig, folder: Path, variant: str, point: int) -> str:
    config = rig.config(variant, folder)

    def work() -> None:
        with at_operation(point, folder, lambda path: os.kill(os.getpid(), signal.SIGKILL)):
            command._prune(config)

    code = end(start(work, folder))
    assert code in (0, -signal.SIGKILL), (folder / "error").read_text()
    rig.check_status(variant, folder)
    rig.check_restart(variant, folder)
    return "killed" if code else REPAIRED


def _work(rig: Rig, variant: str, folder: Path, lease: float) -> None:
    """Do the run as a worker of a grid does: wait while another process holds it."""
    for module in (resume, dense_cache):  # in this process
        module.leased = partial(leased, lease=lease)  # type: ignore[attr-defined]
    while (outcome := attempt(rig.config(variant, folder))).state is RunState.RUNNING:
        time.sleep(0.02)
    if outcome.state is not RunState.DONE:
        raise UserError(outcome.reason)


def suspended(seed: int, count: int = 16) -> Iterator[Injection]:
    """Yield processes that are suspended for longer than their lease, and continue later."""
    generator = random.Random(seed)
    for index in range(count):
        variant, delay = ("disk", "updates")[index % 2], generator.uniform(0, 1)
        run = partial(_suspended, variant=variant, delay=delay, together=index % 3 == 0)
        yield Injection("SIGSTOP past the lease", f"{variant} after {delay:.3f} of its time", run)


def _suspended(rig: Rig, folder: Path, variant: str, delay: float, together: bool) -> str:
    seconds = _seconds(rig, variant) * delay
    first = start(lambda: _work(rig, variant, folder, LEASE), folder)
    time.sleep(seconds)
    _send(first, signal.SIGSTOP)
    try:
        second = start(lambda: _work(rig, variant, folder, LEASE), folder)
        if together:  # the first continues while the second works
            time.sleep(LEASE + 0.3)
        else:
            assert end(second) == 0, (folder / "error").read_text()
    finally:
        _send(first, signal.SIGCONT)
    codes = end(first), end(second)
    judge(max(codes), (folder / "error").read_text())
    assert codes[1] == 0, (folder / "error").read_text()
    rig.check_restart(variant, folder)
    return REPAIRED if codes == (0, 0) else LINE


def together(count: int = 16) -> Iterator[Injection]:
    """Yield two workers that start at the same moment."""
    for index in range(count):
        variant = ("disk", "updates")[index % 2]
        run = partial(_together, variant=variant)
        yield Injection("two workers start together", f"{variant} {index}", run)


def _together(rig: Rig, folder: Path, variant: str) -> str:
    barrier = CONTEXT.Barrier(2)

    def work() -> None:
        barrier.wait(LIMIT)
        _work(rig, variant, folder, 120.0)

    codes = [end(process) for process in [start(work, folder), start(work, folder)]]
    assert codes == [0, 0], (folder / "error").read_text()
    assert judge(0, (folder / "error").read_text()) == REPAIRED
    rig.check_restart(variant, folder)
    return REPAIRED


def real_processes(seed: int, count: int = 9) -> Iterator[Injection]:
    """Yield signals to the command ``python -m neuroal``, from its start on."""
    generator = random.Random(seed)
    for index in range(count):
        number, delay = SIGNALS[index % 3], generator.uniform(4, 12)
        run = partial(_real, number=number, delay=delay)
        yield Injection(f"{number.name} to the command", f"after {delay:.1f} s", run)


def _real(rig: Rig, folder: Path, number: signal.Signals, delay: float) -> str:
    """Send a signal `delay` seconds after the start, or as soon as the run has begun if later."""
    config = rig.config("updates", folder)
    overrides = ["topup=uniform", "pruner=sparsegpt", "model=hf", f"model.path={config.model.path}"]
    overrides += ["device=cpu", "batch=1", "task.batch=1", "save.masks=true"]
    overrides += ["calibration.windows=2", "calibration.search_windows=2", "calibration.seqlen=16"]
    overrides += ["task.seqlen=16", "task.limit=2", f"save.model={config.save.model}"]
    overrides += [f"save.plan={config.save.plan}", f"out={config.out}"]
    command_line = [sys.executable, "-P", "-m", "neuroal", *overrides]
    process = subprocess.Popen(command_line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    begin = time.monotonic()
    while time.monotonic() < begin + LIMIT and process.poll() is None:
        if time.monotonic() > begin + delay and (folder / "out" / "state").exists():
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=LIMIT)
    code = process.returncode
    way = "killed" if code == -signal.SIGKILL else judge(code, error.decode())
    if way != "killed":
        assert not temporary(folder), f"left: {temporary(folder)}"
    rig.check_restart("updates", folder)
    return way if way != LINE else LINE
