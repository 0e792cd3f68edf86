"""Do the runs of a grid one after the other; what fails is noted and leaves the rest alone."""

from __future__ import annotations

import dataclasses
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from neuroal.config import RunConfig
from neuroal.errors import UserError
from neuroal.grid.gpus import own_device
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import State, failure_path
from neuroal.records.files import write_json
from neuroal.records.identity import identity

WAIT = 5.0
"""Seconds between two looks at runs that other workers hold."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run: DONE, FAILED and why, or RUNNING where another worker is at it."""

    state: State
    reason: str = ""


def attempt(config: RunConfig) -> Outcome:
    """Do a run; a failure of whatever kind is noted beside the records."""
    from neuroal.records.stages import Busy  # late: with torch, which takes seconds
    from neuroal.run import run

    noted = failure_path(Path(config.out), identity(config))
    try:
        run(dataclasses.replace(config, device=own_device(config.device)))
    except Busy:
        return Outcome(State.RUNNING)
    except Exception as error:  # whatever it is, the other runs go on
        reason = reason_of(error)
        note = {
            "reason": reason,
            "traceback": traceback.format_exc(),
            "machine": socket.gethostname(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(noted, note)
        return Outcome(State.FAILED, reason)
    noted.unlink(missing_ok=True)
    return Outcome(State.DONE)


def reason_of(error: Exception) -> str:
    """Why something failed, in one line."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")


def work_off(
    runs: Sequence[PlannedRun], say: Callable[[str], None], wait: float = WAIT
) -> dict[State, int]:
    """Do `runs`, and wait for those that other workers are at.

    If such a worker dies, its runs are taken over.

    Args:
        runs: what to do.
        say: told of every run in one line.
        wait: seconds between two looks at runs of others.

    Returns:
        How many of `runs` ended in which state.
    """
    counts = dict.fromkeys((State.DONE, State.FAILED), 0)
    pending = list(enumerate(runs, 1))
    while pending:
        held = []
        for number, planned in pending:
            begin = time.perf_counter()
            outcome = attempt(planned.config)
            if outcome.state is State.RUNNING:
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
