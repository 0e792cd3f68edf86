"""The paper's tables: every expected cell is there, and figures are what the records say."""

from __future__ import annotations

import io
import math
import re
import statistics
from pathlib import Path

import pandas as pd
import pytest

from neuroal.config import CalibrationConfig
from neuroal.records.store import save_record
from neuroal.tables import formats
from neuroal.tables.cases import Case, Expected
from neuroal.tables.declared import expected_from_runs
from neuroal.tables.labels import in_order, label
from neuroal.tables.selection import Selection
from neuroal.tables.study import Study, named, study, tables
from neuroal.tables.table import MISSING, number, ranks
from tests.synthetic import LM, MODELS, ZERO_SHOT, fill, record

PAPER = Expected(
    cases=tuple(
        Case(model, pruner, sparsity, task)
        for model in MODELS
        for pruner in ("magnitude", "wanda", "multiflow")
        for sparsity in ("60 %", "70 %", "80 %")
        for task in (*LM, *(ZERO_SHOT if pruner != "magnitude" else ()))
    ),
    competitors=("uniform", "uniform+dsnot", "owl", "alpha", "neuroal"),
    seeds=(0,),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("records")
    fill(folder, pruners=("magnitude", "wanda"), sparsities=(0.6, 0.7))
    return study(folder)


def test_the_paper_has_276_cases_and_all_missing_ones_are_shown(tmp_path: Path) -> None:
    fill(tmp_path, models=MODELS[:1], pruners=("wanda",), sparsities=(0.7,))
    found = study(tmp_path, expected=PAPER)
    assert len(PAPER.cases) == 276
    assert len(found.cells) == 276 * 5
    assert (found.cells["state"] == "missing").sum() == (276 - 10) * 5
    assert f"{(276 - 10) * 5:,} of {276 * 5:,} results are missing" in " ".join(found.notes)
    made = tables(found)
    perplexity = named(made, "perplexity-c4")
    assert len(perplexity.rows) == 1 + 3 * 3 * 5
    cells = [cell for row in perplexity.rows[1:] for cell in row[3:]]
    assert [cell.text for cell in cells].count(MISSING) == 36 * 5 - 5
    assert len(named(made, "missing").rows) == (276 - 10) * 5


def test_a_cell_is_the_figure_of_its_record(small: Study) -> None:
    made = record("zoo/mistral", "wanda", "owl", 0.7, (*LM, *ZERO_SHOT))
    table = named(tables(small), "perplexity-ptb")
    row = next(r for r in table.rows if [c.text for c in r[:3]] == ["Wanda", "70 %", "OWL"])
    cell = row[table.heads.index("zoo/mistral")]
    assert cell.text == f"{made.metrics['ptb']['pruned']['value']:.2f}"
    assert cell.records == (made.identity,)


def test_zero_shot_means_are_over_all_tasks(small: Study) -> None:
    made = record("zoo/llama", "wanda", "neuroal", 0.6, (*LM, *ZERO_SHOT))
    table = named(tables(small), "zero-shot")
    names = ["zoo/llama", "Wanda", "60 %", "NeuroAL"]
    row = next(r for r in table.rows if [c.text for c in r[:4]] == names)
    shares = [made.metrics[task]["pruned"]["acc"] for task in ZERO_SHOT]
    assert table.heads[-1] == "Mean"
    assert row[-1].text == f"{100 * statistics.fmean(shares):.2f}"
    assert [cell.text for cell in row[4:-1]] == [f"{100 * share:.2f}" for share in shares]


def test_a_mean_with_a_task_missing_is_missing_unless_the_task_cannot_be_run(
    tmp_path: Path,
) -> None:
    for name in ("uniform", "owl"):
        save_record(record(competitor=name, tasks=ZERO_SHOT[:3]), tmp_path)
    cases = tuple(Case("zoo/llama", "wanda", "70 %", task) for task in ZERO_SHOT[:4])
    expected = Expected(cases, ("uniform", "owl"))
    table = named(tables(study(tmp_path, expected=expected)), "zero-shot")
    assert {row[-1].text for row in table.rows} == {MISSING}
    reasons = {cases[3]: "its data are not here"}
    expected = Expected(cases, ("uniform", "owl"), unavailable=reasons)
    table = named(tables(study(tmp_path, expected=expected)), "zero-shot")
    assert table.heads[-1] == "Mean of 3"
    assert MISSING not in {row[-1].text for row in table.rows}
    assert any("(1 cases) cannot be run here: its data are not here" in n for n in table.notes)


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    made = [record(seed=seed) for seed in (0, 1, 2)]
    for one in [*made, record(competitor="owl", seed=0), record(competitor="owl", seed=1)]:
        save_record(one, tmp_path)
    table = named(tables(study(tmp_path)), "perplexity-wikitext2")
    values = [one.metrics["wikitext2"]["pruned"]["value"] for one in made]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert table.rows[1][3].text == f"{mean:.2f} ± {deviation:.2f}"
    assert table.rows[2][3].text.endswith("(2 of 3 seeds)")
    assert "1 of 6 results are missing" in " ".join(table.notes)


def test_the_best_is_bold_and_the_second_underlined_also_when_printed_alike() -> None:
    texts = ["1.23", "1.20", "1.20", None, "9.99"]
    assert ranks(texts, [1.231, 1.204, 1.203, math.nan, 9.99], lower=True) == [2, 1, 1, 0, 0]
    assert ranks(texts, [1.231, 1.204, 1.203, math.nan, 9.99], lower=False) == [2, 0, 0, 0, 1]
    assert ranks(["1.00"], [1.0], lower=True) == [0]


def test_markdown_and_latex_mark_the_same_cells(small: Study) -> None:
    table = named(tables(small), "perplexity-wikitext2")
    best = sum(cell.rank == 1 for row in table.rows for cell in row)
    second = sum(cell.rank == 2 for row in table.rows for cell in row)
    assert best >= 2 * 2 * 2
    text, tex = formats.markdown(table), formats.latex(table)
    assert text.count("**") == 2 * best
    assert text.count("<u>") == second
    assert tex.count(r"\textbf{") == best
    assert tex.count(r"\underline{") == second
    for rule in (r"\toprule", r"\bottomrule", r"\begin{tabular}{lllrr}"):
        assert rule in tex
    assert tex.count(r"\midrule") == 1 + len(table.groups)


def test_latex_is_escaped_and_long_tables_may_break(small: Study) -> None:
    assert formats.escaped("50 % & a_b ± ∞") == r"50 \% \& a\_b $\pm$ $\infty$"
    for table in tables(small):
        tex = formats.latex(table)
        assert tex.isascii(), [sign for sign in tex if not sign.isascii()]
        assert not re.search(r"(?<!\\)[%#_]", tex.replace(r"\label{tab:", "").replace("_", "_", 0))
        assert (r"\begin{longtable}" in tex) == (len(table.rows) > formats.LONGEST)
        columns = len(table.heads)
        body = [line for line in tex.splitlines() if " & " in line]
        assert {line.count(" & ") for line in body} <= {columns - 1}


def test_csv_and_parquet_hold_the_unrounded_figures_and_what_is_missing(tmp_path: Path) -> None:
    save_record(made := record(), tmp_path)
    expected = Expected((Case("zoo/llama", "wanda", "70 %", "wikitext2"),), ("uniform", "owl"))
    table = named(tables(study(tmp_path, expected=expected)), "perplexity-wikitext2")
    text = pd.read_csv(io.StringIO(formats.csv(table)))
    columns = pd.read_parquet(io.BytesIO(formats.parquet(table)))
    for frame in (text, columns):
        assert list(frame["state"]) == ["done", "missing"]
        assert frame["value"][0] == made.metrics["wikitext2"]["pruned"]["value"]
        assert math.isnan(frame["value"][1])


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    pairs = [("uniform", 0.6), ("owl", 0.6), ("uniform", 0.7), ("owl", 0.7)]
    for folder, order in zip(folders, (pairs, pairs[::-1]), strict=True):
        folder.mkdir()
        for name, sparsity in order:
            save_record(record(competitor=name, sparsity=sparsity, tasks=("ptb", "rte")), folder)
        formats.write(tables(study(folder)), folder / "tables")
    one, two = ({p.name: p.read_bytes() for p in (f / "tables").iterdir()} for f in folders)
    assert len(one) == 6 * 4
    assert one == two


def test_runtime_keeps_devices_apart(tmp_path: Path) -> None:
    made = record().to_dict()
    save_record(record(sparsity=0.6), tmp_path)
    save_record(type(record())(**made | {"environment": {"device": "GPU"}}), tmp_path)
    table = named(tables(study(tmp_path)), "runtime")
    assert sorted(row[2].text for row in table.rows) == ["CPU, 1 threads", "GPU"]
    assert {row[4].text for row in table.rows} == {"1"}


def test_performance_against_runtime_is_over_what_all_have(tmp_path: Path) -> None:
    for name, sparsities in (("uniform", (0.6, 0.7)), ("owl", (0.6,))):
        for sparsity in sparsities:
            save_record(record(competitor=name, sparsity=sparsity), tmp_path)
    trade = study(tmp_path).trade()
    assert list(trade["results"]) == [1, 1]
    increase = record(sparsity=0.6).metrics["wikitext2"]["pruned"]["value"] / 20.0
    assert trade["increase"][0] == pytest.approx(increase)
    fast = trade.sort_values("seconds").iloc[0]
    assert fast["front"]


def test_names_are_printed_as_the_field_writes_them_and_in_one_order() -> None:
    assert label("uniform+dsnot") == "Uniform + DSnoT"
    assert label("neuroal(step=block)") == "NeuroAL (step=block)"
    assert label("owl(spread=0.1)+dsnot") == "OWL (spread=0.1) + DSnoT"
    assert label("c4_sample") != label("c4")
    names = ["neuroal", "owl+dsnot", "owl", "own", "uniform"]
    assert in_order(names) == ["uniform", "owl", "owl+dsnot", "neuroal", "own"]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (5.684, "perplexity", "5.68"),
        (354.93, "perplexity", "354.9"),
        (29859.4, "perplexity", "29,859"),
        (math.inf, "perplexity", "∞"),
        (0.41891, "zero_shot", "41.89"),
    ],
)
def test_figures_have_the_digits_that_mean_something(value: float, kind: str, text: str) -> None:
    assert number(value, kind) == text


def test_a_declared_grid_says_what_to_expect_and_what_only_stands_beside(tmp_path: Path) -> None:
    tasks = ("wikitext2", "c4", "c4_sample")
    made = [record(competitor=name, tasks=("wikitext2", "c4_sample")) for name in ("owl", "alpha")]
    runs = [(one.config, tasks) for one in made]
    expected = expected_from_runs(runs, {"c4": "not at hand"}, {"c4_sample"})
    for one in (*made, record(competitor="uniform")):
        save_record(one, tmp_path)
    found = study(tmp_path, expected=expected)
    assert expected.competitors == ("owl", "alpha")
    assert [case.task for case in expected.counted] == ["wikitext2", "c4"]
    made_tables = tables(found)
    assert named(made_tables, "perplexity-c4_sample").rows[1][3].text != MISSING
    assert named(made_tables, "perplexity-c4").rows[1][3].text == MISSING
    assert {row[3].text for row in named(made_tables, "wins").rows} == {"2"}
    assert "C4 (1 cases) cannot be run here: not at hand." in found.notes
    assert "2 of 4 results are missing" in found.notes[0]


def test_only_records_of_known_identity_are_looked_at(tmp_path: Path) -> None:
    wanted, other = record(), record(calibration=CalibrationConfig(name="c4_sample", windows=8))
    for one in (wanted, other):
        save_record(one, tmp_path)
    found = study(tmp_path, Selection(identities=frozenset({wanted.identity})))
    assert list(found.found["identity"]) == [wanted.identity]
