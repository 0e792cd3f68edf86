"""How things are called, and in which order they stand, in all tables and plots."""

from __future__ import annotations

import re
from collections.abc import Iterable

TASKS = {
    "wikitext2": "WikiText-2",
    "ptb": "PTB",
    "c4": "C4",
    "c4_sample": "C4 sample",  # a substitute at hand: never under the real set's name
    "builtin": "built-in text",
    "rte": "RTE",
    "winogrande": "WinoGrande",
    "boolq": "BoolQ",
    "hellaswag": "HellaSwag",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "openbookqa": "OBQA",
}
METHODS = {
    "magnitude": "Magnitude",
    "wanda": "Wanda",
    "multiflow": "multiflow",
    "sparsegpt": "SparseGPT",
    "uniform": "Uniform",
    "dsnot": "DSnoT",
    "owl": "OWL",
    "alpha": "AlphaPruning",
    "dlp": "DLP",
    "atp": "ATP",
    "neuroal": "NeuroAL",
    "marginal": "Equal marginals",
    "evolve": "Evolution",
    "plan": "Plan",
}
"""Pruners, then top-ups and refinements; the order of the tables."""
KINDS = {"perplexity": "perplexity", "zero_shot": "zero-shot accuracy"}
LOWER_IS_BETTER = {"perplexity": True, "zero_shot": False}
Order = tuple[tuple[int, str], ...]


def label(name: str) -> str:
    """What is printed for a task, a model, or a method with its refinement and parameters."""
    if name in TASKS:
        return TASKS[name]
    head, bracket, rest = name.partition("(")
    parts = [METHODS.get(part, part) for part in head.split("+")]
    if bracket and "+" in rest:  # a refinement after the top-up's parameters
        inner, plus, refinement = rest.rpartition(")+")
        rest = f"{inner}) + {label(refinement)}" if plus else rest
    return " + ".join(parts) + (f" ({rest}" if bracket else "")


def position(name: str) -> Order:
    """Sorting key: tasks and methods in the order above, others by name.

    ``owl+dsnot`` comes after ``owl``; numbers in names sort as numbers: ``s8`` before ``s10``.
    """
    known = [*TASKS, *METHODS]
    head = re.split(r"[(+]", name)[0]
    first = known.index(head) if head in known else len(known)
    refined = int("+" in name)
    pieces = re.split(r"(\d+(?:\.\d+)?)", name)
    natural = tuple((int(float(p) * 1e6), "") if i % 2 else (0, p) for i, p in enumerate(pieces))
    return ((first, ""), (refined, ""), *natural)


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct names by `position`."""
    return sorted(set(names), key=position)
