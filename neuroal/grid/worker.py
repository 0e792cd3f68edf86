"""Execute the runs of a grid one by one; failures are recorded and do not stop the others."""

from __future__ import annotations

import dataclasses
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuroal.config.schema import RunConfig
from neuroal.errors import UserError, first_line
from neuroal.files.atomic import write_json
from neuroal.files.machine import MachineError
from neuroal.grid.gpus import own_device
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, failure_path, read_failure, state_of
from neuroal.models.last import LastModel
from neuroal.records.identity import identity_of

LOST_GPU = (
    "the GPU failed, and this process cannot use it any more; start neuroal-grid run again, and "
    "neuroal-grid retry for the run that failed;"
)
WAIT = 5.0
"""Longest time between two checks of runs that other workers hold, in seconds."""
SHORTEST_WAIT = 0.5
"""Shortest such time; it doubles with each check that finds no change."""


@dataclass(frozen=True)
class Outcome:
    """State after an attempt (RUNNING: another worker executes the run), and why it failed.

    `recorded`: whether a failure is described beside the records, as `grid.status` reads it.
    `content`: result of a run that is done, as `result_content` returns it.
    `lost_gpu`: whether this process cannot use its GPU any more, so that every run would fail.
    `gpu_is_full`: whether a run failed for lack of memory in a process that uses a GPU.
    `elsewhere`: whether another worker did the run, or failed at it, while this one worked.
    """

    state: RunState
    reason: str = ""
    recorded: bool = True
    content: Mapping[str, Any] | None = None
    lost_gpu: bool = False
    gpu_is_full: bool = False
    elsewhere: bool = False


@dataclass(frozen=True)
class Tally:
    """State → number of runs that this worker brought to it, and that other workers did."""

    own: Counter[RunState] = field(default_factory=Counter)
    others: Counter[RunState] = field(default_factory=Counter)

    def __str__(self) -> str:
        done, failed = RunState.DONE, RunState.FAILED
        text = f"{self.own[done]} done now, {self.own[failed]} failed"
        if self.others:
            text += f"; by other workers {self.others[done]} done, {self.others[failed]} failed"
        return text


def attempt(config: RunConfig, models: LastModel | None = None) -> Outcome:
    """Execute a run; record an error of any type in a file beside the records.

    A run that failed leaves none of its tensors in memory. `models` loads the models of many runs;
    None: each is read from its files.
    """
    from neuroal.execution.oom import release_memory  # imports torch, which takes seconds

    outcome = _attempt(config, models)
    if outcome.state is RunState.FAILED and not outcome.lost_gpu:
        release_memory()  # here, as a traceback keeps the tensors of its frames alive
    return outcome


def _attempt(config: RunConfig, models: LastModel | None) -> Outcome:
    import torch

    from neuroal.files.gpu_errors import is_memory_error, lost_gpu
    from neuroal.records.result_line import result_content
    from neuroal.records.resume import Busy
    from neuroal.run import run

    identity = identity_of(config)
    failure = failure_path(Path(config.out), identity)
    own = config
    try:
        own = dataclasses.replace(config, device=own_device(config.device))
        record, path = run(own, identity=identity, models=models)
    except Busy:
        return Outcome(RunState.RUNNING)
    except Exception as error:  # an error of any type must not stop the other runs
        lost = lost_gpu(own.device)
        reason = _reason(error)
        if lost:
            reason += f"; this process cannot use its GPU any more ({lost})"
        fault = _record_failure(failure, reason, bool(lost) or isinstance(error, MachineError))
        return Outcome(
            RunState.FAILED,
            reason + fault,
            recorded=not fault,
            lost_gpu=bool(lost),
            gpu_is_full=is_memory_error(error.__cause__ or error) and torch.cuda.is_initialized(),
        )
    failure.unlink(missing_ok=True)
    return Outcome(RunState.DONE, content=result_content(config, record, path))


def _record_failure(path: Path, reason: str, of_machine: bool) -> str:
    """Describe the failure that is being handled; return why it cannot be written, if so."""
    here = socket.gethostname()
    report = {
        "reason": reason,
        "of_machine": of_machine,
        "traceback": traceback.format_exc(),
        "machine": here,
        "machines": sorted({*read_failure(path).machines, here}),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        write_json(path, report)
    except OSError as fault:  # such as a full disk, which may be why the run failed
        return f" ({path.name}: {fault.strerror})"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__


def work_off(runs: Sequence[PlannedRun], say: Callable[[str], None], wait: float = WAIT) -> Tally:
    """Execute `runs`, and wait for those that other workers hold.

    If such a worker dies, its runs are executed here; so are those that fail there because of the
    machine, and those that fail on other machines only, which may lack a file or a card. A run that
    lacks memory does not stop the others; a process that has lost its GPU stops, because every run
    would fail at once.

    Args:
        runs: runs to execute.
        say: receives one line for every run that this worker finished, for every failure, and
            before it waits.
        wait: longest time between two checks of runs that other workers hold, and the time after a
            run that lacked memory of a GPU, in seconds.

    Raises:
        MachineError: this process cannot use its GPU any more.
    """
    tally, models = Tally(), LastModel()
    failures = {planned.identity: _last_failure(planned) for planned in runs}
    pending, pause = list(enumerate(runs, 1)), SHORTEST_WAIT
    while pending:
        held = []
        for number, planned in pending:
            begin = time.perf_counter()
            outcome = _outcome(planned, failures[planned.identity], models)
            if outcome.state is RunState.RUNNING:
                held.append((number, planned))
                continue
            (tally.others if outcome.elsewhere else tally.own)[outcome.state] += 1
            if outcome.elsewhere and outcome.state is RunState.DONE:
                continue
            seconds = f"{time.perf_counter() - begin:.1f} s"
            spent = "by another worker" if outcome.elsewhere else seconds
            line = f"{number}/{len(runs)}  {outcome.state}  {spent}  {planned.run}"
            say(f"{line}: {outcome.reason}" if outcome.reason else line)
            if outcome.lost_gpu:
                left = len(runs) - tally.own.total() - tally.others.total()
                raise MachineError(f"{LOST_GPU} {left} of {len(runs)} runs are left")
            if outcome.gpu_is_full:
                time.sleep(wait)  # other workers on the GPU may free memory
        if len(held) == len(pending):
            if pause == SHORTEST_WAIT:
                say(f"waiting for {len(held)} of {len(runs)} runs, which other workers do")
            time.sleep(min(wait, pause))
            pause *= 2
        else:
            pause = SHORTEST_WAIT
        pending = held
    return tally


def _outcome(planned: PlannedRun, last_failure: int | None, models: LastModel) -> Outcome:
    """Attempt a run, unless another worker does it, has done it, or has failed at it in vain.

    `last_failure` is the `_last_failure` when this worker began.
    """
    try:
        state = state_of(planned)
    except OSError:  # of the file system; an attempt reports it, if it lasts
        return attempt(planned.config, models)
    if state in (RunState.DONE, RunState.RUNNING):  # most runs of a grid; not read again
        return Outcome(state, elsewhere=True)
    if state is RunState.FAILED and _last_failure(planned) != last_failure:
        failure = read_failure(_failure_path(planned))
        if not failure.of_machine and socket.gethostname() in failure.machines:
            return Outcome(state, failure.reason, elsewhere=True)
    return attempt(planned.config, models)


def _last_failure(planned: PlannedRun) -> int | None:
    """Return when a run last failed, in nanoseconds by the file system's clock; None: never."""
    try:
        return _failure_path(planned).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _failure_path(planned: PlannedRun) -> Path:
    return failure_path(Path(planned.config.out), planned.identity)
