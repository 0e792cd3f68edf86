"""The tables of the paper: perplexity and zero-shot accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from neuroal.evaluation.task_table import KINDS
from neuroal.tables.cases import CASE, CELL, Expected
from neuroal.tables.chance import NOTE, Pairs, at_chance, marked
from neuroal.tables.labels import label
from neuroal.tables.table import (
    MISSING,
    Cell,
    Table,
    figure_cell,
    label_cells,
    number,
    rules_between,
    standings,
)

Key = tuple[str, ...]
"""Values of some columns."""
Answers = dict[str, dict[str, Any]]
"""Competitor → its row of the cells."""
DENSE = (Cell("0 %", 0.0), Cell("dense"))
"""Labels of the dense model's sparsity and top-up."""


def perplexity_table(cells: pd.DataFrame, task: str, expected: Expected) -> Table:
    """Return the perplexities on one text.

    Rows are pruner × sparsity × top-up, after the dense model. Columns are models.
    """
    part = cells[cells["task"] == task]
    answers = _answers(part)
    models = [name for name in expected.axis("model") if name in set(part["model"])]
    rows = [(Cell(MISSING), *DENSE, *_dense(part, "model", models, "perplexity"))]
    for pruner, sparsity in _distinct(part, ["pruner", "sparsity"]):
        cases = [(model, pruner, sparsity, task) for model in models]
        columns = [_marked(answers.get(case, {}), expected, "perplexity") for case in cases]
        for competitor in expected.competitors:
            labels = label_cells(pruner, sparsity, competitor)
            rows.append((*labels, *(column[competitor] for column in columns)))
    return Table(
        name=f"perplexity-{task}",
        title=f"Perplexity on {label(task)} (lower is better)",
        heads=("Pruner", "Sparsity", "Top-up", *map(label, models)),
        labels=3,
        rows=tuple(rows),
        data=_tidy(part),
        groups=rules_between(rows, 2),
    )


def zero_shot_table(cells: pd.DataFrame, results: pd.DataFrame, expected: Expected) -> Table:
    """Return the zero-shot accuracies and their means over tasks.

    Rows are model × pruner × sparsity × top-up, with each dense model first. Columns are tasks. The
    mean is over all tasks that can be run, and is missing if one of them is missing.
    """
    part = cells[cells["kind"] == "zero_shot"]
    tasks = [name for name in expected.axis("task") if name in set(part["task"])]
    possible = [name for name in tasks if not (part[part["task"] == name]["why"] != "").all()]
    means = _means(results, possible, expected)
    guessing = at_chance(results)
    answers = _answers(part)
    rows: list[tuple[Cell, ...]] = []
    for model, pruner, sparsity in _distinct(part, ["model", "pruner", "sparsity"]):
        if not any(row[0].text == label(model) for row in rows):
            dense = _dense_with_mean(part[part["model"] == model], tasks, possible, guessing)
            rows.append((*label_cells(model), Cell(MISSING), *DENSE, *dense))
        in_columns = [answers.get((model, pruner, sparsity, task), {}) for task in tasks]
        in_columns.append(means.get((model, pruner, sparsity), {}))
        columns = [_marked(column, expected, "zero_shot") for column in in_columns]
        for competitor in expected.competitors:
            labels = label_cells(model, pruner, sparsity, competitor)
            rows.append((*labels, *(column[competitor] for column in columns)))
    mean = "Mean" if possible == tasks else f"Mean of {len(possible)}"
    models = expected.axis("model")
    return Table(
        name="zero-shot",
        title="Zero-shot accuracy in percent (higher is better)",
        heads=(
            *("Model", "Pruner", "Sparsity", "Top-up"),
            *(marked(label(task), models, task, guessing) for task in tasks),
            mean,
        ),
        labels=4,
        rows=tuple(rows),
        data=_tidy(part),
        notes=(NOTE,) if guessing else (),
        groups=rules_between(rows, 3),
    )


def _distinct(part: pd.DataFrame, by: list[str]) -> list[Key]:
    """Return the distinct values of columns `by`, in the order of the frame."""
    return list(part[by].drop_duplicates().itertuples(index=False, name=None))


def _answers(part: pd.DataFrame) -> dict[Key, Answers]:
    """Return case → competitor → row of the cells."""
    answers: dict[Key, Answers] = {}
    for row in part.to_dict("records"):
        answers.setdefault(tuple(row[key] for key in CASE), {})[row["competitor"]] = row
    return answers


def _marked(answers: Answers, expected: Expected, kind: str) -> Mapping[str, Cell]:
    """Return competitor → cell with its standing, for one case; missing cells included."""
    rows = [answers.get(name) for name in expected.competitors]
    texts = [None if row is None or row["state"] == "missing" else _text(row, kind) for row in rows]
    values = [math.nan if row is None else float(row["value"]) for row in rows]
    rounded = [number(value, kind) for value in values]  # without deviations, for ties
    marks = standings(rounded, values, KINDS[kind].lower_is_better)
    return {
        name: Cell(MISSING)
        if text is None or row is None
        else Cell(text, value, mark, tuple(row["records"].split()))
        for name, row, text, value, mark in zip(
            expected.competitors, rows, texts, values, marks, strict=True
        )
    }


def _text(row: Mapping[str, Any], kind: str) -> str:
    """Return ``12.34 ± 0.56``, without deviation for a single seed."""
    text = number(float(row["value"]), kind)
    if not math.isnan(row["deviation"]):
        text += f" ± {number(float(row['deviation']), kind)}"
    partial = row["state"] == "partial"
    return f"{text} ({row['seeds']} of {row['wanted']} seeds)" if partial else text


def _dense(part: pd.DataFrame, column: str, names: Sequence[str], kind: str) -> list[Cell]:
    """Return the figure of the dense model for each name in `column`."""
    values = part.groupby(column)["dense"].first().reindex(names)
    return [figure_cell(value, number(value, kind)) for value in values.astype(float)]


def _dense_with_mean(
    part: pd.DataFrame, tasks: Sequence[str], possible: Sequence[str], guessing: Pairs
) -> list[Cell]:
    """Return the accuracies of the dense model of `part`, marked at chance, and their mean."""
    models = set(part["model"])
    cells = _dense(part, "task", tasks, "zero_shot")
    values = [cell.value for cell, task in zip(cells, tasks, strict=True) if task in possible]
    present = [value for value in values if value is not None]
    complete = present and len(present) == len(values)
    mean = sum(present) / len(present) if complete else math.nan
    texts = [marked(c.text, models, t, guessing) for c, t in zip(cells, tasks, strict=True)]
    cells = [replace(cell, text=text) for cell, text in zip(cells, texts, strict=True)]
    return [*cells, figure_cell(mean, number(mean, "zero_shot"))]


def _means(results: pd.DataFrame, tasks: Sequence[str], expected: Expected) -> dict[Key, Answers]:
    """Return mean and deviation of the mean over `tasks` over the seeds with results for all."""
    part = results[results["task"].isin(tasks)]
    key = [name for name in CELL if name != "task"]
    seeds = part.groupby([*key, "seed"], sort=False).agg(
        value=("value", "mean"), tasks=("task", "nunique"), records=("identity", "first")
    )
    complete = seeds[seeds["tasks"] == len(tasks)].groupby(key, sort=False)
    means = complete.agg(
        value=("value", "mean"),
        deviation=("value", "std"),
        seeds=("value", "count"),
        records=("records", " ".join),
    )
    answers: dict[Key, Answers] = {}
    seed_count = len(expected.seeds)
    for row in means.reset_index().to_dict("records"):
        state = "done" if row["seeds"] == seed_count else "partial"
        case = tuple(row[name] for name in key[:-1])
        row |= {"wanted": seed_count, "state": state}
        answers.setdefault(case, {})[row["competitor"]] = row
    return answers


def _tidy(part: pd.DataFrame) -> pd.DataFrame:
    columns = [*CASE, "competitor", "kind", "dense", "value", "deviation", "stderr"]
    return part[[*columns, "seeds", "wanted", "state", "why", "records"]].reset_index(drop=True)
