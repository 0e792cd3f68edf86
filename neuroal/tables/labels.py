"""Printed names, and their order in all tables and plots."""

from __future__ import annotations

import re
from collections.abc import Iterable

from neuroal.evaluation.task_table import TASKS

METHODS = {
    "magnitude": "Magnitude",
    "wanda": "Wanda",
    "multiflow": "multiflow",
    "sparsegpt": "SparseGPT",
    "alps": "ALPS",
    "uniform": "Uniform",
    "dsnot": "DSnoT",
    "owl": "OWL",
    "alpha": "AlphaPruning",
    "dlp": "DLP",
    "atp": "ATP",
    "neuroal": "NeuroAL",
    "fisher": "Fisher",
    "marginal": "Equal marginals",
    "evolve": "Evolution",
    "plan": "Plan",
}
"""Option → printed name: pruners, then top-ups and refinements, in the order of the tables."""
Order = tuple[tuple[int, str], ...]
"""Sort key of a name."""


def label(name: str) -> str:
    """Return the printed name of a task, a model, or a method with refinement and parameters."""
    if name in TASKS:
        return TASKS[name].label
    head, bracket, rest = name.partition("(")
    parts = [METHODS.get(part, part) for part in head.split("+")]
    if bracket and "+" in rest:  # a refinement after the top-up's parameters
        inner, plus, refinement = rest.rpartition(")+")
        rest = f"{inner}) + {label(refinement)}" if plus else rest
    return " + ".join(parts) + (f" ({rest}" if bracket else "")


def position(name: str) -> Order:
    """Return the sort key of a name: tasks, then methods, then other names alphabetically.

    ``owl+dsnot`` follows ``owl``, and numbers in names sort by value: ``s8`` before ``s10``.
    """
    order = [*TASKS, *METHODS]
    head = re.split(r"[(+]", name)[0]
    first = order.index(head) if head in order else len(order)
    refined = int("+" in name)
    pieces = re.split(r"(\d+(?:\.\d+)?)", name)
    natural = tuple((int(float(p) * 1e6), "") if i % 2 else (0, p) for i, p in enumerate(pieces))
    return ((first, ""), (refined, ""), *natural)


def in_order(names: Iterable[str]) -> list[str]:
    """Return the distinct names, sorted by `position`."""
    return sorted(set(names), key=position)
