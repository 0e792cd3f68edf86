"""What trackers report: name and settings of a run, and the figures of its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from neuroal.config.naming import method_name, tags_of
from neuroal.config.schema import LONGEST_NAME, RunConfig
from neuroal.evaluation.task_table import KINDS
from neuroal.models.devices import resolve_device
from neuroal.records.identity import environment
from neuroal.records.schema import Record

METHODS = ("pruner", "topup", "refine")


def run_name(config: RunConfig) -> str:
    """Return model, pruner, competitor, sparsity and seed, at most `LONGEST_NAME` characters."""
    seed = f" seed {config.seed}"
    return " ".join(tags_of(config))[: LONGEST_NAME - len(seed)] + seed


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the configuration with short names of the methods, and the environment.

    The methods' own settings are under ``parameters``; versions and commit are under
    ``environment``, as in the record.
    """
    plain = dataclasses.asdict(config)
    methods = {group: plain[group] or {} for group in METHODS}
    return {
        **plain,
        **{group: method_name(group, node) for group, node in methods.items()},
        "parameters": {group: dict(node) for group, node in methods.items()},
        "environment": environment(resolve_device(config.device)),
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of every leaf of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def figures(record: Record) -> Iterator[tuple[str, float]]:
    """Yield ``TASK/dense/FIGURE``, ``TASK/pruned_by_dense``, ``seconds/STAGE``, … of a record.

    ``plan/criterion_STEP`` is the lowest criterion of a step of a search.
    """
    yield "sparsity", record.sparsity["overall"]
    for group in ("seconds", "peak_bytes"):
        for stage, value in record.costs.get(group, {}).items():
            yield f"{group}/{stage}", value
    for task, measured in record.metrics.items():
        for model in ("dense", "pruned"):
            for figure, value in (measured.get(model) or {}).items():
                if isinstance(value, int | float):
                    yield f"{task}/{model}/{figure}", value
    for task, _, _, _, quotient in results(record):
        if quotient is not None:
            yield f"{task}/pruned_by_dense", quotient
    for name, value in record.plan.get("report", {}).items():
        if isinstance(value, int | float):
            yield f"plan/{name}", value
        elif name.startswith("criterion_"):
            measured = [entry for entry in value if entry is not None]
            if measured:
                yield f"plan/{name}", min(measured)


RESULTS = ("task", "figure", "dense", "pruned", "pruned / dense")
"""Columns of `results`."""


def results(record: Record) -> Iterator[tuple[str, str, float, float, float | None]]:
    """Yield the row of each task: figure of the dense and of the pruned model, and quotient."""
    for task, measured in record.metrics.items():
        kind = KINDS[measured["kind"]]
        dense, pruned = measured["dense"][kind.figure], measured["pruned"][kind.figure]
        yield task, kind.label, dense, pruned, pruned / dense if dense else None
