"""Perplexity and seconds of every pair of pruner and top-up, compared with all other pairs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from neuroal.tables.cases import CELL, Expected
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
ALL_TEXTS = "all"
"""Task of geometric means over texts."""
MODEL_CELL = [name for name in CELL if name != "task"]


def means_over_texts(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of `combinations_table` with geometric means over texts."""
    logs = _log_perplexities(cells)
    means = np.exp(
        logs.groupby(MODEL_CELL, sort=False)["value"].agg(lambda each: each.mean(skipna=False))
    )
    return means.reset_index().assign(task=ALL_TEXTS)


def means_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of `combinations_table` with geometric means over texts and seeds.

    ``deviation`` is the standard deviation over seeds of the logarithm of the mean over texts.
    """
    logs = _log_perplexities(results)
    of_seed = logs.groupby([*MODEL_CELL, "seed"], sort=False)["value"].mean()
    over_seeds = of_seed.groupby(MODEL_CELL, sort=False)
    frame = pd.DataFrame({"value": np.exp(over_seeds.mean()), "deviation": 100 * over_seeds.std()})
    return frame.reset_index().assign(task=ALL_TEXTS)


def _log_perplexities(rows: pd.DataFrame) -> pd.DataFrame:
    texts = rows[rows["kind"] == "perplexity"]
    return texts.assign(value=np.log(texts["value"].astype(float)))


def combinations_table(
    cells: pd.DataFrame, run_costs: pd.DataFrame | None, task: str, expected: Expected
) -> Table:
    """Return the perplexities on one text: rows are model × pruner × top-up, columns sparsities.

    The best of a model and a sparsity is that of all pruners and top-ups. Seconds are the median of
    allocation and pruning together, over sparsities and seeds; without `run_costs`, the table has
    none. A column ``deviation`` of `cells` (percent) is printed after the perplexity.
    """
    part = cells[cells["task"] == task]
    sparsities = [name for name in expected.axis("sparsity") if name in set(part["sparsity"])]
    pairs = [(p, name) for p in expected.axis("pruner") for name in expected.competitors]
    seconds = None
    if run_costs is not None:
        seconds = run_costs.groupby(["model", "pruner", "competitor"])["together"].median()
    rows: list[tuple[Cell, ...]] = []
    for model in expected.axis("model"):
        own = part[part["model"] == model]
        columns = [_column(own[own["sparsity"] == name], pairs) for name in sparsities]
        for pair, *figures in zip(pairs, *columns, strict=True):
            if any(cell.text != MISSING for cell in figures):
                row = (*label_cells(model, *pair), *figures)
                if seconds is not None:
                    spent = float(seconds.get((model, *pair), math.nan))
                    row = (*row, figure_cell(spent, plain(spent)))
                rows.append(row)
    heads = ("Model", "Pruner", "Top-up", *map(label, sparsities))
    return Table(
        name=f"combinations-{task}",
        title=f"Perplexity on {label(task)}, best of all pruners and top-ups (lower is better)",
        heads=heads if seconds is None else (*heads, "Seconds"),
        labels=3,
        rows=tuple(rows),
        data=part[["model", "pruner", "competitor", "sparsity", "value"]].reset_index(drop=True),
        groups=rules_between(rows, 2),
    )


def _column(part: pd.DataFrame, pairs: list[Pair]) -> list[Cell]:
    """Return the cells of `pairs` with their standings, for one model and sparsity."""
    means = {(row["pruner"], row["competitor"]): row for row in part.to_dict("records")}
    values = [float(means[pair]["value"]) if pair in means else math.nan for pair in pairs]
    texts = [
        number(value, "perplexity") + _deviation(means.get(pair, {}))
        for value, pair in zip(values, pairs, strict=True)
    ]
    marks = standings(texts, values, lower=True)
    return [
        replace(figure_cell(value, text), standing=mark)
        for value, text, mark in zip(values, texts, marks, strict=True)
    ]


def _deviation(cell: Mapping[Hashable, Any]) -> str:
    percent = float(cell.get("deviation", math.nan))
    return "" if math.isnan(percent) else f" ± {percent:.1f} %"
