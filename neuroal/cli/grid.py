"""The command ``neuroal-grid``: plan, run and monitor a grid."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from neuroal.cli.application import exit_with
from neuroal.cli.declared import planned
from neuroal.cli.flags import OUTPUT_FLAGS, ArgumentParser, with_progress
from neuroal.cli.messages import level_of, print_json, set_level
from neuroal.config.locations import check_writable
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration
from neuroal.grid.planning import PlannedRun
from neuroal.grid.report import (
    cases_text,
    failures_text,
    models_text,
    plan_text,
    states_content,
    states_text,
)
from neuroal.grid.status import RunState, Status, status_of

if TYPE_CHECKING:
    from neuroal.records.rates import Observation

EPILOG = """\
plan    print cases and runs, their states, and an estimate of the remaining time and memory; loads
        no model, except with --measure, which times short parts of the runs of each
status  print how many runs are done, running, failed (with the reason) or missing
run     do the missing runs; several workers, also on several machines, share the grid
retry   do the failed runs again

  neuroal-grid plan experiment=zoo model=zoo/llama,zoo/opt
  neuroal-grid run experiment=paper data.root=FOLDER out=FOLDER --chunk 3/40

Overrides are those of the command neuroal; several values, separated by commas, narrow or extend an
axis of the grid. Exit code 1: a run has failed. Exit code 2: an error of the command, or a GPU that
failed; the further runs are then left.
"""


def main() -> NoReturn:
    """Run the console script ``neuroal-grid``."""
    exit_with(lambda: grid_command(sys.argv[1:]))


def grid_command(arguments: Sequence[str]) -> int:
    """Run the command with `arguments`; return the exit code, 1 if a run has failed."""
    options = _arguments(arguments)
    set_level(level_of(options))
    declaration, runs = planned(with_progress(options.overrides, options.quiet))
    runs = _chunk(runs, options.chunk)
    statuses = list(status_of(runs))
    if options.models:
        print(models_text(runs, statuses))
        return 0
    if options.action == "plan":
        print_plan(options, declaration, runs, statuses)
        return 0
    unfinished = (RunState.MISSING, RunState.RUNNING)
    if options.action == "status":
        if options.json:
            print_json(states_content(runs, statuses))
        else:
            print(states_text(runs, statuses))
        wrong = (RunState.FAILED, *(unfinished if options.all_done else ()))
        return int(any(status.state in wrong for status in statuses))
    return _work(
        runs,
        statuses,
        options.json,
        (RunState.FAILED,) if options.action == "retry" else unfinished,
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        "neuroal-grid",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("plan", "status", "run", "retry"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--chunk", metavar="I/N", help="use part I of N of the grid, from 1")
    parser.add_argument("--models", action="store_true", help="print MODEL RUNS MISSING per model")
    parser.add_argument("--all-done", action="store_true", help="status: fail unless all is done")
    parser.add_argument("--all", action="store_true", help="plan: list every run")
    parser.add_argument("--measure", action="store_true", help="plan: time parts of the runs")
    parser.add_flags(OUTPUT_FLAGS)
    return parser.parse_intermixed_args(arguments)


def _chunk(runs: list[PlannedRun], text: str | None) -> list[PlannedRun]:
    """Return part I of N of `runs` for `text` = "I/N".

    A part is contiguous, so that runs of one model stay together and share its caches.
    """
    if text is None:
        return runs
    try:
        index, count = map(int, text.split("/"))
        if not 1 <= index <= count:
            raise ValueError
    except ValueError as error:
        raise UserError(f"--chunk={text}: must be I/N with I from 1 to N, as in 3/40") from error
    return runs[len(runs) * (index - 1) // count : len(runs) * index // count]


def print_plan(
    options: argparse.Namespace,
    declaration: Declaration,
    runs: Sequence[PlannedRun],
    statuses: Sequence[Status],
) -> None:
    """Print cases and runs, and an estimate of what is left."""
    from neuroal.grid.estimate import estimate_grid  # imports torch, which takes seconds

    measured: Sequence[Observation] = ()
    if options.measure:
        from neuroal.grid.measure import measure

        measured = measure([planned.config for planned in runs])
    left = estimate_grid(runs, statuses, measured)
    if options.json:
        print_json({**states_content(runs, statuses), "left": left.to_dict()})
    else:
        print(cases_text(declaration))
        print(plan_text(runs, statuses, left, every=options.all))


def _work(
    runs: list[PlannedRun], statuses: list[Status], as_json: bool, states: Sequence[RunState]
) -> int:
    """Do the runs in one of `states`; return 1 if a run of the grid has failed, else 0."""
    from neuroal.grid.worker import work_off

    for out in dict.fromkeys(run.config.out for run in runs):
        check_writable("out", out)
    if any(run.config.force for run in runs):
        raise UserError(
            "force=true: neuroal-grid does only what is missing or has failed; use neuroal -m with "
            "the same overrides, or delete the records"
        )
    counts = Counter(status.state for status in statuses).items()
    chosen = [p for p, s in zip(runs, statuses, strict=True) if s.state in states]
    _say(f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts))
    tally = work_off(chosen, _say)
    _say(str(tally))
    after = list(status_of(runs))
    if as_json:
        print_json(states_content(runs, after))
    failed = failures_text(runs, after)
    if failed:
        _say(failed)
    return int(bool(failed or tally.own[RunState.FAILED]))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
