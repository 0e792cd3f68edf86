"""The paper's tables of quality: perplexity and zero-shot accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from neuroal.tables.cases import CASE, CELL, Expected
from neuroal.tables.labels import LOWER_IS_BETTER, label
from neuroal.tables.table import MISSING, Cell, Table, number, ranks, rules_between, with_deviation

Key = tuple[str, ...]


def perplexity_table(table: pd.DataFrame, task: str, expected: Expected) -> Table:
    """Rows: pruner × sparsity × top-up, the dense model first. Columns: models.

    Args:
        table: from `cases.cells`.
        task: a text.
    """
    part = table[table["task"] == task]
    by_case = _groups(part, ["pruner", "sparsity"])
    models = [name for name in expected.axis("model") if name in set(part["model"])]
    rows = [_dense_row(part, [("model", name) for name in models], 3, "perplexity")]
    for (pruner, sparsity), group in by_case.items():
        columns = [_ranked(group[group["model"] == model], expected) for model in models]
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
    rows: list[tuple[Cell, ...]] = []
    for (model, pruner, sparsity), group in _groups(part, ["model", "pruner", "sparsity"]).items():
        if not any(row[0].text == label(model) for row in rows):
            rows.append(_dense_with_mean(part[part["model"] == model], model, tasks, possible))
        columns = [_ranked(group[group["task"] == task], expected) for task in tasks]
        columns.append(_ranked_means(means, (model, pruner, sparsity), expected))
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


def _groups(part: pd.DataFrame, by: list[str]) -> dict[Key, pd.DataFrame]:
    """In the order of the frame, which is the order of the cases."""
    return {tuple(map(str, key)): group for key, group in part.groupby(by, sort=False)}


def _ranked(part: pd.DataFrame, expected: Expected) -> Mapping[str, Cell]:
    """Cells of one case by competitor; missing ones too."""
    rows = {str(row["competitor"]): row for _, row in part.iterrows()}
    got = [rows.get(name) for name in expected.competitors]
    texts = [None if row is None or row["state"] == "missing" else _text(row) for row in got]
    values = [math.nan if row is None else float(row["value"]) for row in got]
    kind = str(part["kind"].iloc[0]) if len(part) else "perplexity"
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


def _text(row: pd.Series) -> str:
    text = with_deviation(float(row["value"]), float(row["deviation"]), str(row["kind"]))
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


def _means(found: pd.DataFrame, tasks: Sequence[str], expected: Expected) -> pd.DataFrame:
    """Mean over `tasks` for each seed that has them all; then mean and deviation over seeds."""
    part = found[found["task"].isin(tasks)]
    key = [name for name in CELL if name != "task"]
    seeds = part.groupby([*key, "seed"], sort=False).agg(
        value=("value", "mean"), tasks=("task", "nunique"), records=("identity", "first")
    )
    complete = seeds[seeds["tasks"] == len(tasks)].groupby(key, sort=False)
    return complete.agg(
        value=("value", "mean"),
        deviation=("value", "std"),
        seeds=("value", "count"),
        records=("records", " ".join),
    )


def _ranked_means(means: pd.DataFrame, case: Key, expected: Expected) -> Mapping[str, Cell]:
    rows = []
    for name in expected.competitors:
        at = (*case, name)
        row = {"competitor": name, "kind": "zero_shot", "wanted": len(expected.seeds)}
        if at in means.index:
            found = means.loc[at].to_dict()
            done = found["seeds"] == len(expected.seeds)
            row |= found | {"state": "done" if done else "partial"}
        else:
            row |= {"state": "missing", "value": math.nan, "deviation": math.nan, "records": ""}
        rows.append(row)
    return _ranked(pd.DataFrame(rows), expected)


def _tidy(part: pd.DataFrame) -> pd.DataFrame:
    columns = [*CASE, "competitor", "kind", "dense", "value", "deviation", "stderr"]
    return part[[*columns, "seeds", "wanted", "state", "why", "records"]].reset_index(drop=True)
