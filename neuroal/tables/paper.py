"""The paper's tables of quality: perplexity and zero-shot accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from neuroal.tables.cases import CASE, CELL, Expected
from neuroal.tables.labels import LOWER_IS_BETTER, label
from neuroal.tables.table import MISSING, Cell, Table, number, ranks, rules_between, with_deviation

Key = tuple[str, ...]
Answers = dict[str, dict[str, Any]]


def perplexity_table(table: pd.DataFrame, task: str, expected: Expected) -> Table:
    """Rows: pruner × sparsity × top-up, the dense model first. Columns: models.

    Args:
        table: from `cases.cells`.
        task: a text.
    """
    part = table[table["task"] == task]
    answers = _answers(part)
    models = [name for name in expected.axis("model") if name in set(part["model"])]
    rows = [_dense_row(part, [("model", name) for name in models], 3, "perplexity")]
    for pruner, sparsity in _distinct(part, ["pruner", "sparsity"]):
        cases = [(model, pruner, sparsity, task) for model in models]
        columns = [_ranked(answers.get(case, {}), expected, "perplexity") for case in cases]
        for competitor in expected.competitors:
            labels = (pruner, sparsity, competitor)
            rows.append((*_labels(labels), *(column[competitor] for column in columns)))
    return Table(
        name=f"perplexity-{task}",
        title=f"Perplexity on {label(task)} (lower is better)",
        heads=("Pruner", "Sparsity", "Top-up", *map(label, models)),
        labels=3,
        rows=tuple(rows),
        data=_tidy(part),
        groups=_rules(rows, 3),
    )


def zero_shot_table(table: pd.DataFrame, found: pd.DataFrame, expected: Expected) -> Table:
    """Rows: model × pruner × sparsity × top-up, each model dense first. Columns: tasks and mean.

    The mean is over all tasks that can be run here, and missing where one of them is missing.

    Args:
        table: from `cases.cells`.
        found: from `cases.relevant`.
    """
    part = table[table["kind"] == "zero_shot"]
    tasks = [name for name in expected.axis("task") if name in set(part["task"])]
    possible = [name for name in tasks if not (part[part["task"] == name]["why"] != "").all()]
    means = _means(found, possible, expected)
    answers = _answers(part)
    rows: list[tuple[Cell, ...]] = []
    for model, pruner, sparsity in _distinct(part, ["model", "pruner", "sparsity"]):
        if not any(row[0].text == label(model) for row in rows):
            rows.append(_dense_with_mean(part[part["model"] == model], model, tasks, possible))
        found_of = [answers.get((model, pruner, sparsity, task), {}) for task in tasks]
        found_of.append(means.get((model, pruner, sparsity), {}))
        columns = [_ranked(answer, expected, "zero_shot") for answer in found_of]
        for competitor in expected.competitors:
            labels = (model, pruner, sparsity, competitor)
            rows.append((*_labels(labels), *(column[competitor] for column in columns)))
    mean = "Mean" if possible == tasks else f"Mean of {len(possible)}"
    return Table(
        name="zero-shot",
        title="Zero-shot accuracy in percent (higher is better)",
        heads=("Model", "Pruner", "Sparsity", "Top-up", *map(label, tasks), mean),
        labels=4,
        rows=tuple(rows),
        data=_tidy(part),
        groups=_rules(rows, 4),
    )


def _labels(names: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(Cell(label(name)) for name in names)


def _rules(rows: Sequence[tuple[Cell, ...]], labels: int) -> frozenset[int]:
    return rules_between([tuple(cell.text for cell in row[:labels]) for row in rows])


def _distinct(part: pd.DataFrame, by: list[str]) -> list[Key]:
    """In the order of the frame, which is the order of the cases."""
    return list(part[by].drop_duplicates().itertuples(index=False, name=None))


def _answers(part: pd.DataFrame) -> dict[Key, Answers]:
    """Case → competitor → its row."""
    answers: dict[Key, Answers] = {}
    for row in part.to_dict("records"):
        answers.setdefault(tuple(row[key] for key in CASE), {})[row["competitor"]] = row
    return answers


def _ranked(answers: Answers, expected: Expected, kind: str) -> Mapping[str, Cell]:
    """Cells of one case by competitor; missing ones too."""
    got = [answers.get(name) for name in expected.competitors]
    texts = [None if row is None or row["state"] == "missing" else _text(row, kind) for row in got]
    values = [math.nan if row is None else float(row["value"]) for row in got]
    places = ranks(_rounded(values, texts, kind), values, LOWER_IS_BETTER[kind])
    return {
        name: Cell(MISSING)
        if text is None or row is None
        else Cell(text, value, place, tuple(row["records"].split()))
        for name, row, text, value, place in zip(
            expected.competitors, got, texts, values, places, strict=True
        )
    }


def _rounded(values: Sequence[float], texts: Sequence[str | None], kind: str) -> list[str | None]:
    """The figures without deviations: what decides whether two are alike."""
    return [
        None if text is None else number(value, kind)
        for value, text in zip(values, texts, strict=True)
    ]


def _text(row: Mapping[str, Any], kind: str) -> str:
    text = with_deviation(float(row["value"]), float(row["deviation"]), kind)
    partial = row["state"] == "partial"
    return f"{text} ({row['seeds']} of {row['wanted']} seeds)" if partial else text


def _dense_row(
    part: pd.DataFrame, columns: Sequence[tuple[str, str]], labels: int, kind: str
) -> tuple[Cell, ...]:
    heads = (*[Cell(MISSING)] * (labels - 2), Cell("0 %", 0.0), Cell("dense"))
    return (*heads, *(_dense(part[part[column] == name], kind) for column, name in columns))


def _dense(part: pd.DataFrame, kind: str) -> Cell:
    values = part["dense"].dropna()
    if values.empty:
        return Cell(MISSING)
    return Cell(number(float(values.iloc[0]), kind), float(values.iloc[0]))


def _dense_with_mean(
    part: pd.DataFrame, model: str, tasks: Sequence[str], possible: Sequence[str]
) -> tuple[Cell, ...]:
    row = _dense_row(part, [("task", task) for task in tasks], 4, "zero_shot")
    values = [cell.value for cell, task in zip(row[4:], tasks, strict=True) if task in possible]
    known = [value for value in values if value is not None]
    mean = Cell(MISSING)
    if known and len(known) == len(values):
        value = sum(known) / len(known)
        mean = Cell(number(value, "zero_shot"), value)
    return (Cell(label(model)), *row[1:], mean)


def _means(found: pd.DataFrame, tasks: Sequence[str], expected: Expected) -> dict[Key, Answers]:
    """Mean over `tasks` for each seed that has them all; then mean and deviation over seeds."""
    part = found[found["task"].isin(tasks)]
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
    wanted = len(expected.seeds)
    for row in means.reset_index().to_dict("records"):
        state = "done" if row["seeds"] == wanted else "partial"
        case = tuple(row[name] for name in key[:-1])
        answers.setdefault(case, {})[row["competitor"]] = row | {"wanted": wanted, "state": state}
    return answers


def _tidy(part: pd.DataFrame) -> pd.DataFrame:
    columns = [*CASE, "competitor", "kind", "dense", "value", "deviation", "stderr"]
    return part[[*columns, "seeds", "wanted", "state", "why", "records"]].reset_index(drop=True)
