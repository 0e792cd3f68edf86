"""Perplexity of every top-up relative to that of uniform pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from neuroal.tables.cases import CASE, Expected, kinds_of
from neuroal.tables.labels import label
from neuroal.tables.table import Cell, Table, figure_cell, label_cells, rules_between, standings
from neuroal.tables.wins import by_competitor, gains_over

BASELINE = "uniform"
ALL = "all"
"""Value of ``pruner`` in rows over all pruners."""


def relative_to_uniform(results: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """Return a row for each competitor and pruner, and for all pruners together (``all``).

    ``ratio`` = geometric mean over cases of perplexity / perplexity of uniform, ``better`` = number
    of cases with a lower perplexity than uniform, ``best`` = number of cases in which no competitor
    has a lower perplexity, ``cases`` = number of perplexity cases that the competitor and uniform
    both answered. Seeds are averaged first. The frame is empty without uniform or perplexities.
    """
    counted = ~results["task"].isin(expected.beside)
    texts = results[counted & (results["kind"] == "perplexity")]
    columns = ["competitor", "pruner", "ratio", "better", "best", "cases"]
    if texts.empty or BASELINE not in set(texts["competitor"]):
        return pd.DataFrame(columns=columns)
    values, kinds = by_competitor(texts), kinds_of(texts)
    means = values.groupby(level=CASE).mean()
    is_best = means.eq(means.min(axis=1), axis=0).reindex(
        columns=expected.competitors, fill_value=False
    )
    rows = []
    for name in expected.competitors:
        gains = gains_over(values, kinds, name, BASELINE)
        best = is_best[name].reindex(pd.MultiIndex.from_frame(gains[CASE]))
        gains = gains.assign(best=best.to_numpy(bool))
        for pruner in (*expected.axis("pruner"), ALL):
            part = gains if pruner == ALL else gains[gains["pruner"] == pruner]
            ratio = float(np.exp(-part["gain"].mean())) if len(part) else float("nan")
            better, best_of = int((part["gain"] > 0).sum()), int(part["best"].sum())
            rows.append((name, pruner, ratio, better, best_of, len(part)))
    return pd.DataFrame(rows, columns=columns)


def relative_table(relative: pd.DataFrame, expected: Expected) -> Table:
    """Return `relative_to_uniform` as a table: rows are competitors, columns are pruners.

    The column of all pruners is left out if there is only one.
    """
    pruners = expected.axis("pruner")
    groups = [*pruners, *([ALL] if len(pruners) > 1 else [])]
    by_pair = relative.set_index(["competitor", "pruner"])
    columns = [_ratios(by_pair["ratio"], group, expected.competitors) for group in groups]
    rows = []
    for name, *ratios in zip(expected.competitors, *columns, strict=True):
        total = by_pair.loc[(name, ALL)]
        counts = [
            Cell(f"{count:.0f} of {total['cases']:.0f}", float(count))
            for count in (total["better"], total["best"])
        ]
        rows.append((*label_cells(name), *ratios, *counts))
    heads = ["All" if group == ALL else label(group) for group in groups]
    return Table(
        name="relative-to-uniform",
        title="Perplexity relative to uniform pruning (lower is better)",
        heads=("Top-up", *heads, "Better than uniform", "Best"),
        labels=1,
        rows=tuple(rows),
        data=relative,
        notes=(
            "Perplexity divided by the perplexity of uniform pruning; geometric mean over cases "
            "that both answered, after averaging over seeds. Counts refer to these cases.",
        ),
    )


def relative_by_sparsity(results: pd.DataFrame, expected: Expected) -> Table:
    """Return perplexity divided by that of uniform pruning, by model, pruner and sparsity.

    Geometric means over the texts; a dash where the competitor or uniform lacks a text.
    """
    texts = results[results["kind"] == "perplexity"]
    values, kinds = by_competitor(texts), kinds_of(texts)
    gains = {n: gains_over(values, kinds, n, BASELINE) for n in expected.competitors}
    columns = list(product(expected.axis("pruner"), expected.axis("sparsity")))
    rows = []
    for model, name in product(expected.axis("model"), expected.competitors):
        number = texts[texts["model"] == model]["task"].nunique()
        own = gains[name][gains[name]["model"] == model].groupby(["pruner", "sparsity"])["gain"]
        means = np.exp(-own.mean())[own.size() == number]
        ratios = [float(means.get(column, np.nan)) for column in columns]
        rows.append((*label_cells(model, name), *(figure_cell(r, f"{r:.3f}") for r in ratios)))
    return Table(
        name="relative-by-sparsity",
        title="Perplexity relative to uniform pruning, by model (lower is better)",
        heads=("Model", "Top-up", *(f"{label(pruner)}, {share}" for pruner, share in columns)),
        labels=2,
        rows=tuple(rows),
        data=texts,
        groups=rules_between(rows, 1),
    )


def _ratios(ratios: pd.Series, group: str, names: Sequence[str]) -> list[Cell]:
    """Return the cells of one column with their standings."""
    values = [float(ratios[name, group]) for name in names]
    texts = ["∞" if np.isinf(value) else f"{value:.3f}" for value in values]
    marks = standings(texts, values, lower=True)
    return [
        replace(figure_cell(value, text), standing=mark)
        for value, text, mark in zip(values, texts, marks, strict=True)
    ]
