"""The command ``neuroal-grid``: plan, follow and run a grid."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType

from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration
from neuroal.grid.planning import PlannedRun
from neuroal.grid.report import cases_text, failures_text, models_text, plan_text, states_text
from neuroal.grid.status import State, Status, status_of

Planned = Callable[[Sequence[str]], tuple[Declaration, list[PlannedRun]]]
EPILOG = """\
plan    cases and runs, how far they are, and an estimate of what is left
status  done, running, failed (and why), missing
run     do what is missing; started on several machines, they share the work
retry   do what has failed, again

  neuroal-grid plan +experiment=zoo model=zoo/llama,zoo/opt
  neuroal-grid run +experiment=paper data.root=FOLDER out=FOLDER --chunk 3/40

GROUP=OPTION, KEY=VALUE are those of the command neuroal; values with commas narrow or extend the
grid. Exit code 1: a run has failed.
"""


def grid_command(arguments: Sequence[str], planned: Planned) -> int:
    """Do what `arguments` say; returns the exit code.

    Args:
        arguments: of the command line.
        planned: from overrides to the grid and its runs.

    Raises:
        UserError: wrong arguments.
    """
    given = _arguments(arguments)
    declaration, runs = planned(given.overrides)
    runs = _chunk(runs, given.chunk)
    statuses = list(status_of(runs))
    if given.models:
        print(models_text(runs, statuses))
        return 0
    if given.action == "plan":
        on_gpu = any(_on_gpu(planned) for planned in runs[:1])
        print(cases_text(declaration))
        print(plan_text(runs, statuses, on_gpu, every=given.all))
        return 0
    if given.action == "status":
        print(states_text(runs, statuses))
        wrong = (State.FAILED, *((State.MISSING, State.RUNNING) if given.all_done else ()))
        return int(any(status.state in wrong for status in statuses))
    wanted = (State.FAILED,) if given.action == "retry" else (State.MISSING, State.RUNNING)
    return _work(runs, statuses, wanted)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "neuroal-grid",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("plan", "status", "run", "retry"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--chunk", metavar="I/N", help="the I-th of N parts of the grid, from 1")
    parser.add_argument("--models", action="store_true", help="lines of MODEL RUNS MISSING alone")
    parser.add_argument("--all-done", action="store_true", help="status: fail unless all is done")
    parser.add_argument("--all", action="store_true", help="plan: list every run")
    try:
        return parser.parse_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error


def _chunk(runs: list[PlannedRun], text: str | None) -> list[PlannedRun]:
    """The `text`-th part of `runs`; neighbours stay together, so that a model is cached."""
    if text is None:
        return runs
    try:
        index, count = map(int, text.split("/"))
        if not 1 <= index <= count:
            raise ValueError
    except ValueError as error:
        raise UserError(f"--chunk={text}: must be I/N with I from 1 to N, as in 3/40") from error
    return runs[len(runs) * (index - 1) // count : len(runs) * index // count]


def _on_gpu(planned: PlannedRun) -> bool:
    device = planned.config.device
    return device.startswith("cuda") or (device == "auto" and bool(shutil.which("nvidia-smi")))


def _work(runs: list[PlannedRun], statuses: list[Status], wanted: Sequence[State]) -> int:
    from neuroal.grid.worker import work_off

    signal.signal(signal.SIGTERM, _leave)
    states = Counter(status.state for status in statuses)
    chosen = [p for p, s in zip(runs, statuses, strict=True) if s.state in wanted]
    _say(f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in states.items()))
    counts = work_off(chosen, _say)
    _say(f"{counts[State.DONE]} done now, {counts[State.FAILED]} failed")
    failed = failures_text(runs, list(status_of(runs)))
    if failed:
        _say(failed)
    return int(bool(failed))


def _leave(number: int, frame: FrameType | None) -> None:
    """End by the front door, so that locks are given back; a later start goes on from here."""
    sys.exit(128 + number)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
