"""Pairs of pruner and top-up: one best of all pairs for each model and sparsity, and seconds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from neuroal.tables.combinations import ALL_TEXTS, combinations_table, means_over_seeds
from neuroal.tables.study import named, study, tables
from tests.synthetic import fill


def test_the_best_is_that_of_all_pruners_and_top_ups(tmp_path: Path) -> None:
    fill(tmp_path, competitors=("uniform", "neuroal"), sparsities=(0.6, 0.7), tasks=("ptb",))
    table = named(tables(study(tmp_path)), "combinations-ptb")
    assert table.heads == ("Model", "Pruner", "Top-up", "60 %", "70 %", "Seconds")
    models = {row[0].text for row in table.rows}
    pairs = {(row[1].text, row[2].text) for row in table.rows}
    assert len(pairs) == 4
    assert len(table.rows) == len(models) * len(pairs)
    for model in models:
        rows = [row for row in table.rows if row[0].text == model]
        for column in (3, 4):
            best = min(row[column].value for row in rows if row[column].value is not None)
            marked = {row[column].value for row in rows if row[column].standing == 1}
            assert marked == {best}


def test_seconds_are_those_of_allocation_and_pruning(tmp_path: Path) -> None:
    fill(tmp_path, competitors=("uniform", "neuroal"), sparsities=(0.6,), tasks=("ptb",))
    results = study(tmp_path)
    expected = results.costs.groupby(["model", "pruner", "competitor"])["together"].median()
    table = named(tables(results), "combinations-ptb")
    assert sorted(row[-1].value or 0 for row in table.rows) == sorted(expected)


def test_one_pruner_or_one_top_up_needs_no_such_table(tmp_path: Path) -> None:
    fill(tmp_path, competitors=("uniform",), sparsities=(0.6,), tasks=("ptb",))
    assert "combinations-ptb" not in [table.name for table in tables(study(tmp_path))]


def test_means_over_seeds_have_the_deviation_of_means_over_texts(tmp_path: Path) -> None:
    names = ("uniform", "neuroal")
    fill(tmp_path, competitors=names, sparsities=(0.6,), tasks=("ptb", "wikitext2"), seeds=(0, 1))
    results = study(tmp_path)
    table = combinations_table(means_over_seeds(results.results), None, ALL_TEXTS, results.expected)
    assert table.heads == ("Model", "Pruner", "Top-up", "60 %")
    frame = results.results
    for row in means_over_seeds(frame).to_dict("records"):
        own = frame
        for key in ("model", "pruner", "competitor", "sparsity"):
            own = own[own[key] == row[key]]
        logs = [own[own["seed"] == seed]["value"].map(math.log).mean() for seed in (0, 1)]
        assert row["value"] == pytest.approx(math.exp(sum(logs) / 2))
        assert row["deviation"] == pytest.approx(100 * abs(logs[0] - logs[1]) / math.sqrt(2))
        cells = [cell.text for line in table.rows for cell in line[3:]]
        assert any(text.endswith(f" ± {row['deviation']:.1f} %") for text in cells)
