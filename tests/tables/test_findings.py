"""Budgets, seeds, chance and zero-shot beside perplexity: figures worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables.cases import Case, Expected
from neuroal.tables.findings import (
    carry_over_table,
    chance_table,
    dense_table,
    rules_table,
    seeds_table,
)
from neuroal.tables.study import Study, study
from tests.synthetic import record
from tests.tables.rows import result
from tests.tables.test_rivals import texts


def measured(
    folder: Path, figures: dict[str, float], achieved: float = 0.7, **options: object
) -> Study:
    """Return a study with these perplexities on PTB at 70 %, and this achieved sparsity."""
    for name, value in figures.items():
        fields = record(competitor=name, tasks=("ptb",), **options).to_dict()  # type: ignore[arg-type]
        fields["metrics"]["ptb"]["pruned"]["value"] = value
        drift = achieved if name == "neuroal" else 0.7
        fields["sparsity"] = {"overall": drift, "linears": dict.fromkeys(fields["masks"], drift)}
        save_record(Record.from_dict(fields), folder)
    return study(folder)


def test_drift_is_the_share_of_the_advantage_that_exact_budgets_remove(tmp_path: Path) -> None:
    exact = measured(tmp_path / "exact", {"uniform": 100, "owl": 100, "neuroal": 90})
    reference = {"uniform": 100.0, "owl": 70.0, "neuroal": 81.0}
    loose = measured(tmp_path / "reference", reference, 0.68, rules="reference")
    rows = {tuple(row[:2]): row[2:] for row in texts(rules_table(exact, loose))}
    assert rows["Uniform", "Wanda"] == rows["Uniform", "All"]
    uniform = rows["Uniform", "All"]
    assert uniform == ["1 of 1 · 0.900", "1 of 1 · 0.810", "+50 %", "-2.00", "+0.00"]
    # Under the reference's rules there is no advantage over OWL of which a share could be drift.
    assert rows["OWL", "All"][:3] == ["1 of 1 · 0.900", "0 of 1 · 1.157", "–"]


def test_rules_are_compared_over_the_cases_that_both_have(tmp_path: Path) -> None:
    measured(tmp_path / "exact", {"uniform": 10, "neuroal": 90}, model="zoo/opt")
    exact = measured(tmp_path / "exact", {"uniform": 100, "neuroal": 90})
    loose = measured(tmp_path / "loose", {"uniform": 100, "neuroal": 90}, rules="reference")
    assert texts(rules_table(exact, loose))[-1][2:4] == ["1 of 1 · 0.900", "1 of 1 · 0.900"]


def test_seeds_have_columns_of_their_own_and_a_spread(tmp_path: Path) -> None:
    for seed, (uniform, neuroal) in enumerate(((100, 50), (100, 100), (100, 200))):
        data = measured(tmp_path, {"uniform": uniform, "neuroal": neuroal}, seed=seed)
    table = seeds_table(data.results, ["uniform", "neuroal"])
    assert table.heads[1:4] == ("Seed 0", "Seed 1", "Seed 2")
    uniform_row, own = texts(table)
    assert uniform_row[1:] == ["1 of 1 · 0.500", "0 of 1 · 1.000", "0 of 1 · 2.000", "0.0 %"]
    assert own[1:] == ["–", "–", "–", f"{100 * math.log(2):.1f} %"]


def test_perplexities_are_divided_by_the_dense_one_in_cases_that_all_answered() -> None:
    figures = [("60 %", "uniform", 40.0), ("60 %", "owl", 20.0), ("70 %", "uniform", 80.0)]
    frame = pd.DataFrame(
        [
            result(name, v, task="ptb", kind="perplexity", dense=10.0, sparsity=s)
            for s, name, v in figures
        ]
    )
    cases = tuple(Case("zoo/llama", "wanda", sparsity, "ptb") for sparsity in ("60 %", "70 %"))
    table = dense_table(frame, Expected(cases, ("uniform", "owl")))
    assert table.heads == ("Top-up", "60 %")
    assert texts(table) == [["Uniform", "4.00"], ["OWL", "2.00"]]


def both_kinds(accuracies: dict[str, float], perplexities: dict[str, float]) -> pd.DataFrame:
    rows = [
        result(name, value, task=task, kind=kind, dense=dense)
        for task, kind, dense, values in (
            ("rte", "zero_shot", 0.8, accuracies),
            ("ptb", "perplexity", 10.0, perplexities),
        )
        for name, value in values.items()
    ]
    return pd.DataFrame(rows)


def test_recovered_shares_are_of_what_uniform_loses() -> None:
    frame = both_kinds(
        {"uniform": 0.6, "neuroal": 0.65, "owl": 0.55},
        {"uniform": 1000.0, "neuroal": 100.0, "owl": 1000.0},
    )
    expected = Expected((Case("a", "wanda", "70 %", "rte"),), ("uniform", "neuroal", "owl"))
    neuroal, owl = texts(carry_over_table(frame, expected))
    assert neuroal[:5] == ["NeuroAL", "1", "50 %", "25 %", "+5.00"]
    assert owl[:5] == ["OWL", "1", "0 %", "-25 %", "-5.00"]


def test_models_without_zero_shot_results_do_not_count_in_the_carry_over() -> None:
    frame = both_kinds({}, {"uniform": 1000.0, "neuroal": 100.0})
    expected = Expected((Case("a", "wanda", "70 %", "ptb"),), ("uniform", "neuroal"))
    assert texts(carry_over_table(frame, expected)) == [["NeuroAL", "0", "–", "–", "–", "–"]]


@pytest.mark.parametrize(("dense", "marked"), [(0.8, False), (0.54, True)])
def test_the_table_of_chance_marks_what_is_no_better(dense: float, marked: bool) -> None:
    frame = both_kinds({"uniform": 0.5}, {"uniform": 20.0}).assign(dense=dense)
    (row,) = texts(chance_table(frame))
    assert row == ["RTE", "52.7", f"{100 * dense:.1f} ± 1.0{'†' if marked else ''}"]
