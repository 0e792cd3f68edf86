"""Execute the runs of a grid one by one; failures are recorded and do not stop the others."""

from __future__ import annotations

import dataclasses
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroal.config.schema import RunConfig
from neuroal.errors import UserError, first_line
from neuroal.files.atomic import write_json
from neuroal.grid.gpus import own_device
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, failure_path
from neuroal.records.identity import identity_of

if TYPE_CHECKING:
    from neuroal.models.last import LastModel

WAIT = 5.0
"""Seconds between two checks of runs that other workers hold."""


@dataclass(frozen=True)
class Outcome:
    """State after an attempt (RUNNING: another worker executes the run), and why it failed.

    `recorded`: whether a failure is described beside the records, as `grid.status` reads it.
    `content`: result of a run that is done, as `result_content` returns it.
    """

    state: RunState
    reason: str = ""
    recorded: bool = True
    content: Mapping[str, Any] | None = None


def attempt(config: RunConfig, models: LastModel | None = None) -> Outcome:
    """Execute a run; record an error of any type in a file beside the records.

    `models` loads the models of many runs; None: each is read from its files.
    """
    from neuroal.records.result_line import result_content
    from neuroal.records.resume import Busy  # imports torch, which takes seconds
    from neuroal.run import run

    identity = identity_of(config)
    failure = failure_path(Path(config.out), identity)
    try:
        own = dataclasses.replace(config, device=own_device(config.device))
        record, path = run(own, identity=identity, models=models)
    except Busy:
        return Outcome(RunState.RUNNING)
    except Exception as error:  # an error of any type must not stop the other runs
        reason = _reason(error)
        report = {
            "reason": reason,
            "traceback": traceback.format_exc(),
            "machine": socket.gethostname(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            write_json(failure, report)
        except OSError as fault:  # such as a full disk, which may be why the run failed
            reason += f" ({failure.name}: {fault.strerror})"
            return Outcome(RunState.FAILED, reason, recorded=False)
        return Outcome(RunState.FAILED, reason)
    failure.unlink(missing_ok=True)
    return Outcome(RunState.DONE, content=result_content(config, record, path))


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__


def work_off(
    runs: Sequence[PlannedRun], say: Callable[[str], None], wait: float = WAIT
) -> dict[RunState, int]:
    """Execute `runs`, and wait for those that other workers hold; return state → number of runs.

    If such a worker dies, its runs are executed here.

    Args:
        runs: runs to execute.
        say: receives one line for every finished run.
        wait: seconds between two checks of runs that other workers hold.
    """
    counts = Counter[RunState]()
    if not runs:
        return counts
    from neuroal.models.last import LastModel  # imports torch, which takes seconds

    models, pending = LastModel(), list(enumerate(runs, 1))
    while pending:
        held = []
        for number, planned in pending:
            begin = time.perf_counter()
            outcome = attempt(planned.config, models)
            if outcome.state is RunState.RUNNING:
                held.append((number, planned))
                continue
            counts[outcome.state] += 1
            spent = f"{time.perf_counter() - begin:.1f} s"
            line = f"{number}/{len(runs)}  {outcome.state}  {spent}  {planned.run}"
            say(f"{line}: {outcome.reason}" if outcome.reason else line)
        if len(held) == len(pending):
            time.sleep(wait)
        pending = held
    return counts
