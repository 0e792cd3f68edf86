"""Perplexity and seconds of every pair of pruner and top-up, compared with all other pairs."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from neuroal.tables.cases import Expected
from neuroal.tables.labels import label
from neuroal.tables.table import (
    MISSING,
    Cell,
    Table,
    figure_cell,
    label_cells,
    number,
    plain,
    rules_between,
    standings,
)

Pair = tuple[str, str]
"""A pruner and a competitor."""


def combinations_table(
    cells: pd.DataFrame, run_costs: pd.DataFrame, task: str, expected: Expected
) -> Table:
    """Return the perplexities on one text: rows are model × pruner × top-up, columns sparsities.

    The best of a model and a sparsity is that of all pruners and top-ups. Seconds are the median of
    allocation and pruning together, over sparsities and seeds.
    """
    part = cells[cells["task"] == task]
    sparsities = [name for name in expected.axis("sparsity") if name in set(part["sparsity"])]
    pairs = [(p, name) for p in expected.axis("pruner") for name in expected.competitors]
    seconds = run_costs.groupby(["model", "pruner", "competitor"])["together"].median()
    rows: list[tuple[Cell, ...]] = []
    for model in expected.axis("model"):
        own = part[part["model"] == model]
        columns = [_column(own[own["sparsity"] == name], pairs) for name in sparsities]
        for pair, *figures in zip(pairs, *columns, strict=True):
            if any(cell.text != MISSING for cell in figures):
                spent = float(seconds.get((model, *pair), math.nan))
                labels = label_cells(model, *pair)
                rows.append((*labels, *figures, figure_cell(spent, plain(spent))))
    return Table(
        name=f"combinations-{task}",
        title=f"Perplexity on {label(task)}, best of all pruners and top-ups (lower is better)",
        heads=("Model", "Pruner", "Top-up", *map(label, sparsities), "Seconds"),
        labels=3,
        rows=tuple(rows),
        data=part[["model", "pruner", "competitor", "sparsity", "value"]].reset_index(drop=True),
        groups=rules_between(rows, 2),
    )


def _column(part: pd.DataFrame, pairs: list[Pair]) -> list[Cell]:
    """Return the cells of `pairs` with their standings, for one model and sparsity."""
    means = {(row["pruner"], row["competitor"]): row for row in part.to_dict("records")}
    values = [float(means[pair]["value"]) if pair in means else math.nan for pair in pairs]
    texts = [number(value, "perplexity") for value in values]
    marks = standings(texts, values, lower=True)
    return [
        replace(figure_cell(value, text), standing=mark)
        for value, text, mark in zip(values, texts, marks, strict=True)
    ]
