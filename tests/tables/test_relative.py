"""Perplexity relative to uniform: geometric means, counts and competitors without results."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from neuroal.tables.cases import Case, Expected, answered_by_all
from neuroal.tables.relative import (
    ALL,
    relative_by_sparsity,
    relative_table,
    relative_to_uniform,
)
from neuroal.tables.study import named, study, tables
from tests.synthetic import fill

MODELS = ("a", "b", "c")
CASES = tuple(Case(model, p, "70 %", "ptb") for p in ("wanda", "magnitude") for model in MODELS)


def results(values: dict[str, list[float | None]], seed: int = 0) -> pd.DataFrame:
    """Return one result for each competitor and case, in the order of `CASES`."""
    rows = [
        {**case._asdict(), "competitor": name, "seed": seed, "kind": "perplexity", "value": value}
        for name, figures in values.items()
        for case, value in zip(CASES, figures, strict=False)
        if value is not None
    ]
    return pd.DataFrame(rows)


UNIFORM: list[float | None] = [10.0, 20.0, 40.0, 10.0, 10.0, 10.0]


def test_ratios_are_geometric_means_over_the_cases_that_both_answered() -> None:
    frame = results({"uniform": UNIFORM, "owl": [5.0, 40.0, 20.0, 40.0, None, 10.0]})
    relative = relative_to_uniform(frame, Expected(CASES, ("uniform", "owl")))
    rows = relative.set_index(["competitor", "pruner"])
    assert set(rows.loc["uniform"]["ratio"]) == {1.0}
    assert rows.loc[("owl", "wanda"), "ratio"] == pytest.approx(0.5 ** (1 / 3))
    assert rows.loc[("owl", "magnitude"), "ratio"] == pytest.approx(2.0)
    assert rows.loc[("owl", ALL), "ratio"] == pytest.approx((0.5 * 2 * 0.5 * 4 * 1) ** (1 / 5))
    assert tuple(rows.loc[("owl", ALL), ["better", "best", "cases"]]) == (2, 3, 5)
    assert tuple(rows.loc[("uniform", ALL), ["better", "best", "cases"]]) == (0, 4, 6)


def test_seeds_are_averaged_and_tasks_beside_are_not_counted() -> None:
    frame = pd.concat(
        [
            results({"uniform": UNIFORM, "owl": [10.0] * 6}),
            results({"uniform": UNIFORM, "owl": [30.0] * 6}, seed=1),
            results({"uniform": UNIFORM, "owl": [1.0] * 6}).assign(task="c4_sample"),
        ]
    )
    expected = Expected(CASES, ("uniform", "owl"), (0, 1), beside=frozenset({"c4_sample"}))
    rows = relative_to_uniform(frame, expected).set_index(["competitor", "pruner"])
    assert rows.loc[("owl", "magnitude"), "ratio"] == pytest.approx(2.0)
    assert rows.loc[("owl", ALL), "cases"] == 6


def test_a_competitor_without_results_has_dashes() -> None:
    expected = Expected(CASES, ("uniform", "owl", "dlp"))
    frame = results({"uniform": UNIFORM, "owl": [math.inf, 20.0, 40.0, *[5.0] * 3]})
    table = relative_table(relative_to_uniform(frame, expected), expected)
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[0] == ["Uniform", "1.000", "1.000", "1.000", "0 of 6", "3 of 6"]
    assert texts[1][1:4] == ["∞", "0.500", "∞"]
    assert texts[2] == ["DLP", "–", "–", "–", "0 of 0", "0 of 0"]


def test_one_pruner_has_no_column_of_all() -> None:
    expected = Expected(CASES[:3], ("uniform", "owl"))
    frame = results({"uniform": UNIFORM[:3], "owl": [5.0, 10.0, 20.0]})
    table = relative_table(relative_to_uniform(frame, expected), expected)
    assert table.heads == ("Top-up", "Wanda", "Better than uniform", "Best")
    assert [cell.text for cell in table.rows[1]] == ["OWL", "0.500", "3 of 3", "3 of 3"]


def test_a_case_that_one_competitor_lacks_is_not_answered_by_all() -> None:
    frame = results({"uniform": UNIFORM, "owl": [5.0, None, 20.0, 40.0, 10.0, 10.0]})
    common = answered_by_all(frame, ("uniform", "owl"))
    lacking = tuple(CASES[1])
    assert lacking in set(frame[list(Case._fields)].itertuples(index=False, name=None))
    assert lacking not in set(common[list(Case._fields)].itertuples(index=False, name=None))
    assert len(common) == 2 * 5
    assert answered_by_all(frame, ("uniform", "owl", "dlp")).empty


def test_ratios_by_sparsity_need_every_text_of_both() -> None:
    figures = {
        ("50 %", "ptb"): {"uniform": 10.0, "owl": 5.0, "dlp": 10.0},
        ("50 %", "wikitext2"): {"uniform": 10.0, "owl": 20.0, "dlp": 40.0},
        ("70 %", "ptb"): {"uniform": 10.0, "owl": 5.0, "dlp": 10.0},
        ("70 %", "wikitext2"): {"uniform": 10.0, "dlp": 40.0},
        ("80 %", "ptb"): {"owl": 5.0},
        ("80 %", "rte"): {"uniform": 0.5, "owl": 0.5},
    }
    kinds = {"rte": "zero_shot"}
    cases = {key: Case("a", "wanda", *key) for key in figures}
    rows = [
        {
            **cases[key]._asdict(),
            "competitor": n,
            "seed": 0,
            "kind": kinds.get(key[1], "perplexity"),
        }
        | {"value": value}
        for key, values in figures.items()
        for n, value in values.items()
    ]
    expected = Expected(tuple(cases.values()), ("uniform", "owl", "dlp"))
    table = relative_by_sparsity(pd.DataFrame(rows), expected)
    assert table.heads == ("Model", "Top-up", "Wanda, 50 %", "Wanda, 70 %", "Wanda, 80 %")
    assert [[cell.text for cell in row][1:] for row in table.rows] == [
        ["Uniform", "1.000", "1.000", "–"],
        ["OWL", "1.000", "–", "–"],
        ["DLP", "2.000", "2.000", "–"],
    ]


def test_the_table_is_written_if_uniform_is_a_competitor(tmp_path: Path) -> None:
    for name, competitors in (("with", ("uniform", "neuroal")), ("without", ("owl", "neuroal"))):
        fill(tmp_path / name, competitors=competitors, sparsities=(0.6, 0.7), tasks=("ptb", "rte"))
    table = named(tables(study(tmp_path / "with")), "relative-to-uniform")
    assert table.heads == ("Top-up", "Magnitude", "Wanda", "All", "Better than uniform", "Best")
    assert [row[-2].text for row in table.rows] == ["0 of 8", "8 of 8"]
    names = [table.name for table in tables(study(tmp_path / "without"))]
    assert "relative-to-uniform" not in names
