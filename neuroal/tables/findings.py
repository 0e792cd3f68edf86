"""What lies behind the wins: budgets, seeds, chance, and zero-shot beside perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from neuroal.evaluation.task_table import TASKS
from neuroal.tables.cases import CASE, Expected, answered_by_all, kinds_of
from neuroal.tables.chance import at_chance, marked
from neuroal.tables.labels import in_order, label
from neuroal.tables.relative import BASELINE
from neuroal.tables.rivals import (
    NEUROAL,
    gains_over_rivals,
    split_cell,
)
from neuroal.tables.study import Study
from neuroal.tables.table import MISSING, Cell, Table, figure_cell, label_cells, rules_between
from neuroal.tables.wins import by_competitor, gains_over

ALL = "all"
MODEL = ["model", "pruner", "sparsity"]
"""Columns that identify a pruned model, beside the competitor."""


def perplexities(results: pd.DataFrame) -> pd.DataFrame:
    return results[results["kind"] == "perplexity"]


def rules_table(exact: Study, reference: Study) -> Table:
    """Return NeuroAL's wins and factors under both budget rules, over the cases that both answered.

    *From drift* is the share of the reference's advantage, a factor below 1 in logarithms, that
    exact budgets remove: 1 − log(factor, exact) / log(factor, reference).
    """
    rivals = [name for name in reference.expected.competitors if name != NEUROAL]
    sides = [gains_over_rivals(perplexities(s.results), rivals) for s in (exact, reference)]
    key = [*CASE, "rival"]
    gains = sides[0][[*key, "gain"]].merge(sides[1][[*key, "gain"]], on=key)
    drifts = _drifts(reference)
    rows = []
    for rival, pruner in product(rivals, (*reference.expected.axis("pruner"), ALL)):
        part = gains[(gains["rival"] == rival) & ((gains["pruner"] == pruner) | (pruner == ALL))]
        advantages = [float(part[column].mean()) for column in ("gain_x", "gain_y")]
        share = 1 - advantages[0] / advantages[1] if advantages[1] > 0 else math.nan
        rows.append(
            (
                *label_cells(rival, "All" if pruner == ALL else pruner),
                *(split_cell(part[column]) for column in ("gain_x", "gain_y")),
                figure_cell(share, f"{100 * share:+.0f} %"),
                *(_drift(drifts.get((name, pruner), math.nan)) for name in (NEUROAL, rival)),
            )
        )
    heads = ("Against", "Pruner", "rules=exact", "rules=reference", "From drift")
    return Table(
        name="rules",
        title="Budget rules",
        heads=(*heads, "Drift of NeuroAL", "Drift of the other"),
        labels=2,
        rows=tuple(rows),
        data=gains,
        groups=rules_between(rows, 1),
    )


def _drift(points: float) -> Cell:
    return figure_cell(points, f"{points:+.2f}")


def _drifts(reference: Study) -> dict[tuple[str, str], float]:
    """Return (competitor, pruner) → mean of achieved minus nominal sparsity, in points."""
    runs = reference.costs.assign(
        drift=100 * (reference.costs["achieved"] - reference.costs["ratio"])
    )
    drifts = runs.groupby(["competitor", "pruner"])["drift"].mean().to_dict()
    whole = runs.groupby("competitor")["drift"].mean()
    return {**drifts, **{(name, ALL): float(value) for name, value in whole.items()}}


def dense_table(results: pd.DataFrame, expected: Expected) -> Table:
    """Return perplexity divided by that of the dense model, by sparsity.

    Geometric means over the cases that all competitors of `expected` answered.
    """
    common = answered_by_all(perplexities(results), expected.competitors)
    logs = np.log(common["value"].astype(float) / common["dense"].astype(float))
    means = np.exp(logs.groupby([common["competitor"], common["sparsity"]]).mean())
    sparsities = [s for s in expected.axis("sparsity") if s in set(common["sparsity"])]
    columns = []
    for sparsity in sparsities:
        values = [float(means[name, sparsity]) for name in expected.competitors]
        columns.append([figure_cell(value, f"{value:.2f}") for value in values])
    rows = [
        (*label_cells(name), *cells)
        for name, *cells in zip(expected.competitors, *columns, strict=True)
    ]
    return Table(
        name="relative-to-dense",
        title="Perplexity relative to the dense model (lower is better)",
        heads=("Top-up", *sparsities),
        labels=1,
        rows=tuple(rows),
        data=common,
    )


def seeds_table(results: pd.DataFrame, competitors: Sequence[str]) -> Table:
    """Return NeuroAL's wins and factors by seed, and how much seeds change a perplexity.

    The last column is the standard deviation of log perplexity over seeds: its median over cases.
    """
    texts = perplexities(results)
    seeds = sorted(set(texts["seed"]))
    logs = np.log(by_competitor(texts)).groupby(level=CASE).std().median()
    rows = []
    for name in competitors:
        parts = [gains_over_rivals(texts[texts["seed"] == seed], [name])["gain"] for seed in seeds]
        texts_of_parts = [Cell(MISSING)] * len(seeds) if name == NEUROAL else map(split_cell, parts)
        spread = 100 * float(logs.get(name, math.nan))
        rows.append((*label_cells(name), *texts_of_parts, figure_cell(spread, f"{spread:.1f} %")))
    return Table(
        name="seeds",
        title="By seed",
        heads=("Against", *(f"Seed {seed}" for seed in seeds), "Standard deviation over seeds"),
        labels=1,
        rows=tuple(rows),
        data=texts,
    )


def chance_table(results: pd.DataFrame) -> Table:
    """Return the accuracy of the dense models on each zero-shot task, marked at chance."""
    part = results[results["kind"] == "zero_shot"]
    dense = part.drop_duplicates(["model", "task"]).set_index(["model", "task"])
    guessing = at_chance(part)
    models, rows = in_order(part["model"]), []
    for task in in_order(part["task"]):
        cells = []
        for model in models:
            entry = dense.loc[(model, task)] if (model, task) in dense.index else None
            text = MISSING
            if entry is not None:
                text = f"{100 * entry['dense']:.1f} ± {100 * entry['dense_stderr']:.1f}"
            cells.append(Cell(marked(text, [model], task, guessing)))
        chance = TASKS[task].chance if task in TASKS else None
        limit = Cell(MISSING) if chance is None else Cell(f"{100 * chance:.1f}", chance)
        rows.append((*label_cells(task), limit, *cells))
    return Table(
        name="chance",
        title="Zero-shot tasks at chance",
        heads=("Task", "Chance, %", *map(label, models)),
        labels=1,
        rows=tuple(rows),
        data=part,
    )


def carry_over_table(results: pd.DataFrame, expected: Expected) -> Table:
    """Return how much of each top-up's gain over uniform is left in zero-shot accuracy.

    For the pruned models with both: the share of the loss of uniform pruning that the top-up
    recovers, in log perplexity and in accuracy (sums over pruned models); its mean gain in points;
    and the rank correlation of both gains over pruned models.
    """
    both = results.groupby(MODEL)["kind"].transform("nunique") > 1
    part = results[both]
    rows = []
    for name in [name for name in expected.competitors if name != BASELINE]:
        gains = {k: _gains(part[part["kind"] == k], name) for k in ("perplexity", "zero_shot")}
        joined = (
            gains["perplexity"].add_suffix("_text").join(gains["zero_shot"].add_suffix("_task"))
        )
        joined = joined.replace([np.inf, -np.inf], np.nan).dropna()
        texts, tasks = (_recovered(joined, end) for end in ("_text", "_task"))
        points = 100 * float(joined["gain_task"].mean()) if len(joined) else math.nan
        ranks = joined[["gain_text", "gain_task"]].rank()
        correlation = float(ranks["gain_text"].corr(ranks["gain_task"]))
        rows.append(
            (
                *label_cells(name),
                Cell(str(len(joined)), float(len(joined))),
                *(figure_cell(share, f"{100 * share:.0f} %") for share in (texts, tasks)),
                figure_cell(points, f"{points:+.2f}"),
                figure_cell(correlation, f"{correlation:.2f}"),
            )
        )
    heads = ("Top-up", "Pruned models", "Recovered, log perplexity", "Recovered, accuracy")
    return Table(
        name="carry-over",
        title="From perplexity to zero-shot accuracy",
        heads=(*heads, "Accuracy, points", "Rank correlation"),
        labels=1,
        rows=tuple(rows),
        data=part,
    )


def _gains(part: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return for each pruned model the mean ``gain`` of `name` over uniform, and the ``loss``.

    The loss is that of uniform from the dense model. Both are in log perplexity or accuracy.
    """
    gains = gains_over(by_competitor(part), kinds_of(part), name, BASELINE)
    uniform = part[part["competitor"] == BASELINE].groupby(CASE)[["value", "dense"]].mean()
    joined = gains.join(uniform, on=CASE)
    is_text = (part["kind"] == "perplexity").all()
    value, dense = joined["value"].astype(float), joined["dense"].astype(float)
    loss = np.log(value) - np.log(dense) if is_text else dense - value
    frame: pd.DataFrame = joined.assign(loss=loss).groupby(MODEL)[["gain", "loss"]].mean()
    return frame


def _recovered(joined: pd.DataFrame, end: str) -> float:
    lost = float(joined[f"loss{end}"].sum())
    return float(joined[f"gain{end}"].sum()) / lost if lost > 0 else math.nan
