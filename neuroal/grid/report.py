"""The text output of ``neuroal-grid``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from neuroal.grid.declaration import REPEATS, Declaration
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, Status

if TYPE_CHECKING:
    from neuroal.grid.estimate import Estimate


def cases_text(declaration: Declaration) -> str:
    """Return the number of cases, the axes, and which cases are missing and why."""
    available, unavailable = declaration.count(), declaration.count(missing=True)
    of = f" of {available + unavailable}" if unavailable else ""
    lines = [f"{available}{of} cases for each competitor (model, pruner, sparsity, task):"]
    for key, values in declaration.axes.items():
        repeated = "  (repeats each case)" if key == REPEATS and len(values) > 1 else ""
        lines.append(f"  {key:<12} {', '.join(values)}{repeated}")
    for part in declaration.parts:
        beside = "  (in addition to the cases)" if part.beside else ""
        tasks = ", ".join(task for task in part.tasks if task not in declaration.missing)
        if tasks and part.pruners:
            lines.append(f"  {', '.join(part.pruners)}: {tasks}{beside}")
    for task, reason in declaration.missing.items():
        if count := declaration.only(task).count(missing=True):
            lines.append(f"  {count} missing: {task}: {reason}")
    if count := declaration.count(beside=True):
        lines.append(f"  {count} in addition to the cases")
    competitors = ", ".join(map(_pair, declaration.competitors))
    return "\n".join([*lines, f"{len(declaration.competitors)} competitors: {competitors}"])


def _pair(competitor: Iterable[tuple[str, str]]) -> str:
    choices = dict(competitor)
    topup, refine = choices.pop("topup"), choices.pop("refine")
    more = "".join(f" {key}={value}" for key, value in choices.items())
    return f"{topup}{'' if refine == 'none' else f'+{refine}'}{more}"


def plan_text(
    runs: Sequence[PlannedRun], statuses: Sequence[Status], left: Estimate, every: bool
) -> str:
    """Return the runs by model and state (with `every`, also each run), and what is left to do."""
    lines = [f"{len(runs)} runs: {_states(statuses)}"]
    lines += [
        f"  {model:<16} {len(of_model)} runs: {_states(of_model)}"
        for model, of_model in _by_model(runs, statuses).items()
    ]
    if every:
        lines += [
            f"  {planned.identity}  {status.state:<8} {planned.run}  {','.join(planned.run.tasks)}"
            for planned, status in zip(runs, statuses, strict=True)
        ]
    lines.append(estimate_text(left))
    return "\n".join([*lines, *_notes(runs, statuses)])


def models_text(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """Return a line for each model, for scripts: name, number of runs, number of missing runs."""
    return "\n".join(
        f"{model} {len(of_model)} {sum(status.state is RunState.MISSING for status in of_model)}"
        for model, of_model in _by_model(runs, statuses).items()
    )


def _by_model(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> dict[str, list[Status]]:
    groups: dict[str, list[Status]] = {}
    for planned, status in zip(runs, statuses, strict=True):
        groups.setdefault(dict(planned.run.choices).get("model", "-"), []).append(status)
    return groups


def estimate_text(left: Estimate) -> str:
    """Return time and memory in one line, and what they are estimated from."""
    if not left.runs:
        return "nothing left to do"
    if left.seconds is None:
        spent = (
            f"unknown time (no earlier run of such a model on {left.device}; try plan --measure)"
        )
    else:
        spent = f"about {duration(left.seconds)} on {left.device}"
    memory = gibibytes(left.peak_bytes)
    basis = f"{left.measured} of {left.runs} runs by earlier runs of the model"
    return f"left for one worker: {spent}, memory {memory} ({basis})"


def gibibytes(size: float | None) -> str:
    """Return an estimated size in bytes as text."""
    return "unknown" if size is None else f"about {size / 2**30:.2g} GiB"


def duration(seconds: float) -> str:
    """Return an estimated number of seconds as text."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def states_text(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """Return the runs by state, the number of results, the running runs and the failures."""
    lines = [f"{len(runs)} runs: {_states(statuses)}"]
    expected = sum(len(planned.run.tasks) for planned in runs)
    missing = sum(len(status.lacking) for status in statuses)
    lines.append(f"{expected - missing} of {expected} results (run × task)")
    lines += [
        f"running: {planned.run}  (missing {','.join(status.lacking)})"
        for planned, status in zip(runs, statuses, strict=True)
        if status.state is RunState.RUNNING
    ]
    failed = failures_text(runs, statuses)
    return "\n".join([*lines, *([failed] if failed else []), *_notes(runs, statuses)])


def states_content(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> dict[str, Any]:
    """Return the runs by state, and every run with its state, in JSON types."""
    return {
        "states": {str(state): count for state, count in _counts(statuses).items()},
        "runs": [
            {
                "identity": planned.identity,
                "choices": dict(planned.run.choices),
                "state": str(status.state),
                "lacking": list(status.lacking),
                "reason": status.reason,
                "record": str(planned.record_path),
            }
            for planned, status in zip(runs, statuses, strict=True)
        ],
    }


def _notes(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> list[str]:
    """Return lines on inputs that are not on this machine, and on records of version 0.1."""
    absent = dict.fromkeys(name for planned in runs for name in planned.absent)
    notes = [
        f"{name}: not here; its runs are identified by their last use of it" for name in absent
    ]
    without_record = [p for p, s in zip(runs, statuses, strict=True) if s.summary is None]
    former = sum(planned.former_record.exists() for planned in without_record)
    if former:
        notes.append(
            f"{former} runs have a record of version 0.1, which does not count as finished; "
            "tables still read it"
        )
    return notes


def failures_text(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """Return one line for each failed run."""
    return "\n".join(
        f"failed: {planned.run}: {status.reason}"
        for planned, status in zip(runs, statuses, strict=True)
        if status.state is RunState.FAILED
    )


def _states(statuses: Iterable[Status]) -> str:
    return ", ".join(f"{count} {state}" for state, count in _counts(statuses).items())


def _counts(statuses: Iterable[Status]) -> dict[RunState, int]:
    counts = Counter(status.state for status in statuses)
    return {state: counts[state] for state in RunState}
