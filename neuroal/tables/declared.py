"""What a declared grid lets one expect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from neuroal.records.naming import competitor, method_name, model_name, sparsity_name
from neuroal.tables.cases import Case, Expected


def expected_from_runs(
    runs: Iterable[tuple[Mapping[str, Any], Sequence[str]]],
    missing: Mapping[str, str],
    beside: Collection[str] = (),
) -> Expected:
    """Cases, competitors and seeds of planned runs; each field in its order of appearance.

    Args:
        runs: the configuration of each (`dataclasses.asdict`) and the tasks it answers, with those
            that cannot be run.
        missing: task → why it cannot be run.
        beside: tasks that are shown, but not counted among the cases.
    """
    cases: dict[Case, None] = {}
    competitors: dict[str, None] = {}
    seeds: dict[int, None] = {}
    for config, tasks in runs:
        competitors.setdefault(competitor(config))
        seeds.setdefault(int(config["seed"]))
        where = (model_name(config), method_name("pruner", config["pruner"]), sparsity_name(config))
        for task in tasks:
            cases.setdefault(Case(*where, task))
    ordered = in_fields_order(cases)
    return Expected(
        cases=ordered,
        competitors=tuple(competitors),
        seeds=tuple(sorted(seeds)),
        unavailable={case: missing[case.task] for case in ordered if case.task in missing},
        beside=frozenset(beside),
    )


def in_fields_order(cases: Collection[Case]) -> tuple[Case, ...]:
    """Sorted by model, pruner, sparsity and task, each in the order in which they first appear."""
    places = [
        {value: place for place, value in enumerate(dict.fromkeys(values))}
        for values in zip(*cases, strict=True)
    ]
    return tuple(sorted(cases, key=lambda case: [p[v] for p, v in zip(places, case, strict=True)]))
