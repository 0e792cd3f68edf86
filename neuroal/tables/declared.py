"""Expected cases and competitors of a declared grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroal.config.naming import competitor, method_name, model_name, sparsity_name
from neuroal.tables.cases import Case, Expected

METHODS = ("pruner", "topup", "refine")
"""Groups whose parameters are always part of a competitor's name."""
Choices = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DeclaredRun:
    """One run of a declared grid, reduced to what tables need.

    Attributes:
        config: complete configuration (`dataclasses.asdict`).
        tasks: its tasks, including tasks that cannot be run.
        choices: keys and values that its competitor sets.
    """

    identity: str
    config: Mapping[str, Any]
    tasks: Sequence[str]
    choices: Choices = ()

    @property
    def others(self) -> Choices:
        """Choices outside the methods, with the last part of their keys."""
        return tuple(
            (key.rpartition(".")[2], value)
            for key, value in self.choices
            if key.partition(".")[0] not in METHODS
        )


def competitor_names(runs: Iterable[DeclaredRun]) -> dict[str, str]:
    """Return identity → name of the run's competitor.

    Competitors with the same methods are distinguished by their other choices:
    ``neuroal`` and ``neuroal(search_windows=64)``.
    """
    runs = list(runs)
    names = {run.identity: competitor(run.config) for run in runs}
    distinct = {(names[run.identity], run.others) for run in runs}
    count = Counter(name for name, _ in distinct)
    return {
        run.identity: _extended(names[run.identity], run.others)
        if count[names[run.identity]] > 1
        else names[run.identity]
        for run in runs
    }


def _extended(name: str, choices: Choices) -> str:
    """Return `name` with `choices` added to its parameters."""
    if not choices:
        return name
    listed = ", ".join(f"{key}={value}" for key, value in choices)
    return f"{name[:-1]}, {listed})" if name.endswith(")") else f"{name}({listed})"


def expected_from_runs(
    runs: Sequence[DeclaredRun], missing: Mapping[str, str], beside: Collection[str] = ()
) -> Expected:
    """Return cases, competitors and seeds of planned runs; each field in its order of appearance.

    `missing` maps tasks to why they cannot be run; `beside` is as in `Expected`.
    """
    cases: dict[Case, None] = {}
    for config, task in ((run.config, task) for run in runs for task in run.tasks):
        pruner = method_name("pruner", config["pruner"])
        cases.setdefault(Case(model_name(config), pruner, sparsity_name(config), task))
    ordered = in_fields_order(cases)
    return Expected(
        cases=ordered,
        competitors=tuple(dict.fromkeys(competitor_names(runs).values())),
        seeds=tuple(sorted({int(run.config["seed"]) for run in runs})),
        unavailable={case: missing[case.task] for case in ordered if case.task in missing},
        beside=frozenset(beside),
    )


def in_fields_order(cases: Collection[Case]) -> tuple[Case, ...]:
    """Sort by model, pruner, sparsity and task, each in the order in which they first appear."""
    positions = [
        {value: position for position, value in enumerate(dict.fromkeys(values))}
        for values in zip(*cases, strict=True)
    ]
    return tuple(
        sorted(cases, key=lambda case: [p[v] for p, v in zip(positions, case, strict=True)])
    )
