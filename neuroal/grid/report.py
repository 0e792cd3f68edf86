"""What ``neuroal-grid`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from neuroal.grid.declaration import REPEATS, Declaration
from neuroal.grid.estimate import estimate
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import State, Status


def cases_text(declaration: Declaration) -> str:
    """How many cases there are, of what, and which are missing for what reason."""
    return "\n".join(_cases(declaration))


def _cases(declaration: Declaration) -> Iterator[str]:
    lacking = declaration.count(missing=True)
    total = declaration.count() + lacking
    of = f" of {total}" if lacking else ""
    yield f"{declaration.count()}{of} cases for each competitor (model, pruner, sparsity, task):"
    for key, values in declaration.axes.items():
        repeated = "  (repeats each case)" if key == REPEATS and len(values) > 1 else ""
        yield f"  {key:<12} {', '.join(values)}{repeated}"
    for part in declaration.parts:
        beside = "  (beside the cases)" if part.beside else ""
        tasks = ", ".join(task for task in part.tasks if task not in declaration.missing)
        if tasks and part.pruners:
            yield f"  {', '.join(part.pruners)}: {tasks}{beside}"
    for task, why in declaration.missing.items():
        count = declaration.only(task).count(missing=True)
        if count:
            yield f"  {count} missing: {task}: {why}"
    if beside_count := declaration.count(beside=True):
        yield f"  {beside_count} more beside them"
    yield f"{len(declaration.competitors)} competitors: " + ", ".join(
        map(_pair, declaration.competitors)
    )


def _pair(competitor: Iterable[tuple[str, str]]) -> str:
    choices = dict(competitor)
    topup, refine = choices.pop("topup"), choices.pop("refine")
    more = "".join(f" {key}={value}" for key, value in choices.items())
    return f"{topup}{'' if refine == 'none' else f'+{refine}'}{more}"


def plan_text(
    runs: Sequence[PlannedRun], statuses: Sequence[Status], on_gpu: bool, every: bool
) -> str:
    """Runs by model and state, and what is left to do; `every`: one line a run as well."""
    lines = [f"{len(runs)} runs: {_states(statuses)}"]
    lines += [
        f"  {model:<16} {len(found)} runs: {_states(found)}"
        for model, found in _by_model(runs, statuses).items()
    ]
    if every:
        lines += [
            f"  {planned.identity}  {status.state:<8} {planned.run}  {','.join(planned.run.tasks)}"
            for planned, status in zip(runs, statuses, strict=True)
        ]
    lines.append(_estimate(runs, statuses, on_gpu))
    return "\n".join(lines)


def models_text(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """For scripts: a line for each model, its runs, and how many of them are missing."""
    return "\n".join(
        f"{model} {len(found)} {sum(status.state is State.MISSING for status in found)}"
        for model, found in _by_model(runs, statuses).items()
    )


def _by_model(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> dict[str, list[Status]]:
    groups: dict[str, list[Status]] = {}
    for planned, status in zip(runs, statuses, strict=True):
        groups.setdefault(dict(planned.run.choices).get("model", "-"), []).append(status)
    return groups


def _estimate(runs: Sequence[PlannedRun], statuses: Sequence[Status], on_gpu: bool) -> str:
    left = estimate(runs, statuses, on_gpu)
    if not left.runs:
        return "nothing is left to do"
    spent = "unknown time" if left.seconds is None else f"about {_duration(left.seconds)}"
    held = "unknown" if left.peak_bytes is None else f"about {left.peak_bytes / 2**30:.2g} GiB"
    basis = (
        f"{left.measured} of them as measured on finished runs, the rest by the size of the models"
        if left.measured < left.runs
        else "as measured on finished runs"
    )
    return f"left for one worker: {spent}, memory {held} ({left.runs} runs, {basis})"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def states_text(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """Runs and task results by state, what is running, and why what failed."""
    lines = [f"{len(runs)} runs: {_states(statuses)}"]
    wanted = sum(len(planned.run.tasks) for planned in runs)
    lacking = sum(len(status.lacking) for status in statuses)
    lines.append(f"{wanted - lacking} of {wanted} results (run × task)")
    lines += [
        f"running: {planned.run}  (lacks {','.join(status.lacking)})"
        for planned, status in zip(runs, statuses, strict=True)
        if status.state is State.RUNNING
    ]
    failed = failures_text(runs, statuses)
    return "\n".join([*lines, *([failed] if failed else [])])


def failures_text(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> str:
    """One line for each run that failed."""
    return "\n".join(
        f"failed: {planned.run}: {status.reason}"
        for planned, status in zip(runs, statuses, strict=True)
        if status.state is State.FAILED
    )


def _states(statuses: Iterable[Status]) -> str:
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in State)
