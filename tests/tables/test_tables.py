"""The tables of the paper: they have every expected cell and the figures of the records."""

from __future__ import annotations

import io
import math
import re
import statistics
from pathlib import Path

import pandas as pd
import pytest

from neuroal.config.schema import CalibrationConfig
from neuroal.records.store import save_record
from neuroal.tables import formats
from neuroal.tables.cases import Case, Expected
from neuroal.tables.declared import (
    Choices,
    DeclaredRun,
    competitor_names,
    expected_from_runs,
)
from neuroal.tables.labels import in_order, label
from neuroal.tables.selection import Selection
from neuroal.tables.study import Study, named, study, tables
from neuroal.tables.table import MISSING, number, standings
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


def test_the_paper_has_276_cases_and_missing_ones_are_shown(tmp_path: Path) -> None:
    fill(tmp_path, models=MODELS[:1], pruners=("wanda",), sparsities=(0.7,))
    data = study(tmp_path, expected=PAPER)
    assert len(PAPER.cases) == 276
    assert len(data.cells) == 276 * 5
    assert (data.cells["state"] == "missing").sum() == (276 - 10) * 5
    assert f"{(276 - 10) * 5:,} of {276 * 5:,} results are missing" in " ".join(data.notes)
    parts = tables(data)
    perplexity = named(parts, "perplexity-c4")
    assert len(perplexity.rows) == 1 + 3 * 3 * 5
    cells = [cell for row in perplexity.rows[1:] for cell in row[3:]]
    assert [cell.text for cell in cells].count(MISSING) == 36 * 5 - 5
    assert len(named(parts, "missing").rows) == (276 - 10) * 5


def test_a_cell_has_the_figure_of_its_record(small: Study) -> None:
    saved = record("zoo/mistral", "wanda", "owl", 0.7, (*LM, *ZERO_SHOT))
    table = named(tables(small), "perplexity-ptb")
    row = next(r for r in table.rows if [c.text for c in r[:3]] == ["Wanda", "70 %", "OWL"])
    cell = row[table.heads.index("zoo/mistral")]
    assert cell.text == f"{saved.metrics['ptb']['pruned']['value']:.2f}"
    assert cell.records == (saved.identity,)


def test_zero_shot_means_are_over_all_tasks(small: Study) -> None:
    saved = record("zoo/llama", "wanda", "neuroal", 0.6, (*LM, *ZERO_SHOT))
    table = named(tables(small), "zero-shot")
    names = ["zoo/llama", "Wanda", "60 %", "NeuroAL"]
    row = next(r for r in table.rows if [c.text for c in r[:4]] == names)
    shares = [saved.metrics[task]["pruned"]["acc"] for task in ZERO_SHOT]
    assert table.heads[-1] == "Mean"
    assert row[-1].text == f"{100 * statistics.fmean(shares):.2f}"
    assert [cell.text for cell in row[4:-1]] == [f"{100 * share:.2f}" for share in shares]


def test_a_mean_needs_all_tasks_that_can_be_run(
    tmp_path: Path,
) -> None:
    for name in ("uniform", "owl"):
        save_record(record(competitor=name, tasks=ZERO_SHOT[:3]), tmp_path)
    cases = tuple(Case("zoo/llama", "wanda", "70 %", task) for task in ZERO_SHOT[:4])
    expected = Expected(cases, ("uniform", "owl"))
    table = named(tables(study(tmp_path, expected=expected)), "zero-shot")
    assert {row[-1].text for row in table.rows} == {MISSING}
    reasons = {cases[3]: "its data is not available"}
    expected = Expected(cases, ("uniform", "owl"), unavailable=reasons)
    table = named(tables(study(tmp_path, expected=expected)), "zero-shot")
    assert table.heads[-1] == "Mean of 3"
    assert MISSING not in {row[-1].text for row in table.rows}
    assert any("(1 cases) cannot be run here: its data is not available" in n for n in table.notes)


def test_several_seeds_give_mean_and_deviation(tmp_path: Path) -> None:
    uniform = [record(seed=seed) for seed in (0, 1, 2)]
    for one in [*uniform, record(competitor="owl", seed=0), record(competitor="owl", seed=1)]:
        save_record(one, tmp_path)
    table = named(tables(study(tmp_path)), "perplexity-wikitext2")
    values = [one.metrics["wikitext2"]["pruned"]["value"] for one in uniform]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert table.rows[1][3].text == f"{mean:.2f} ± {deviation:.2f}"
    assert table.rows[2][3].text.endswith("(2 of 3 seeds)")
    assert "1 of 6 results are missing" in " ".join(table.notes)


def test_equal_printed_figures_have_the_same_standing() -> None:
    texts = ["1.23", "1.20", "1.20", None, "9.99"]
    assert standings(texts, [1.231, 1.204, 1.203, math.nan, 9.99], lower=True) == [2, 1, 1, 0, 0]
    assert standings(texts, [1.231, 1.204, 1.203, math.nan, 9.99], lower=False) == [2, 0, 0, 0, 1]
    assert standings(["1.00"], [1.0], lower=True) == [0]


def test_markdown_and_latex_mark_the_same_cells(small: Study) -> None:
    table = named(tables(small), "perplexity-wikitext2")
    best = sum(cell.standing == 1 for row in table.rows for cell in row)
    second = sum(cell.standing == 2 for row in table.rows for cell in row)
    assert best >= 2 * 2 * 2
    text, tex = formats.markdown(table), formats.latex(table)
    assert text.count("**") == 2 * best
    assert text.count("<u>") == second
    assert tex.count(r"\textbf{") == best
    assert tex.count(r"\underline{") == second
    for rule in (r"\toprule", r"\bottomrule", r"\begin{tabular}{lllrr}"):
        assert rule in tex
    assert tex.count(r"\midrule") == 1 + len(table.groups)
    assert tex.splitlines()[0] == r"% \usepackage{booktabs} \usepackage{graphicx}"


def test_latex_is_escaped_and_long_tables_are_divided_into_pages(small: Study) -> None:
    assert formats.escaped("50 % & a_b ± ∞") == r"50 \% \& a\_b $\pm$ $\infty$"
    for table in tables(small):
        tex = formats.latex(table)
        assert tex.isascii(), [sign for sign in tex if not sign.isascii()]
        body = tex.partition("\n")[2].replace("{!}{%", "")  # without the comments
        assert not re.search(r"(?<!\\)[%#_]", body)
        pages = tex.split(r"\clearpage")
        assert (len(pages) > 1) == (len(table.rows) > formats.LONGEST)
        rows = [page.count(r" \\") - 1 for page in pages]
        assert sum(rows) == len(table.rows)
        assert max(rows) <= formats.LONGEST
        starts = {sum(rows[:i]) for i in range(1, len(rows))}
        assert starts <= table.groups or not table.groups
        assert tex.count(r"\label") == 1
        columns = len(table.heads)
        body = [line for line in tex.splitlines() if " & " in line]
        assert {line.count(" & ") for line in body} <= {columns - 1}


def test_csv_and_parquet_contain_unrounded_and_missing_figures(tmp_path: Path) -> None:
    save_record(saved := record(), tmp_path)
    expected = Expected((Case("zoo/llama", "wanda", "70 %", "wikitext2"),), ("uniform", "owl"))
    table = named(tables(study(tmp_path, expected=expected)), "perplexity-wikitext2")
    text = pd.read_csv(io.StringIO(formats.csv(table)))
    columns = pd.read_parquet(io.BytesIO(formats.parquet(table)))
    for frame in (text, columns):
        assert list(frame["state"]) == ["done", "missing"]
        assert frame["value"][0] == saved.metrics["wikitext2"]["pruned"]["value"]
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
    assert len(one) == 8 * 4
    assert one == two


def test_runtime_has_separate_rows_for_devices(tmp_path: Path) -> None:
    fields = record().to_dict()
    save_record(record(sparsity=0.6), tmp_path)
    save_record(type(record())(**fields | {"environment": {"device": "GPU"}}), tmp_path)
    table = named(tables(study(tmp_path)), "runtime")
    assert sorted(row[2].text for row in table.rows) == ["CPU, 1 threads", "GPU"]
    assert {row[4].text for row in table.rows} == {"1"}


def test_performance_against_runtime_uses_common_cases(tmp_path: Path) -> None:
    for name, sparsities in (("uniform", (0.6, 0.7)), ("owl", (0.6,))):
        for sparsity in sparsities:
            save_record(record(competitor=name, sparsity=sparsity), tmp_path)
    trade = study(tmp_path).trade()
    assert list(trade["results"]) == [1, 1]
    increase = record(sparsity=0.6).metrics["wikitext2"]["pruned"]["value"] / 20.0
    assert trade["increase"][0] == pytest.approx(increase)
    fast = trade.sort_values("seconds").iloc[0]
    assert fast["front"]


def test_seconds_against_performance_are_the_median_of_the_runs(tmp_path: Path) -> None:
    for seed, allocate in enumerate((1.0, 2.0, 60.0)):
        fields = record(seed=seed).to_dict()
        fields["costs"]["seconds"] |= {"allocate": allocate, "prune": 0.5}
        save_record(type(record())(**fields), tmp_path)
    assert study(tmp_path).trade()["seconds"].tolist() == [2.5]


def test_names_have_the_usual_spelling_and_a_fixed_order() -> None:
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
def test_figures_are_rounded_by_kind_and_size(value: float, kind: str, text: str) -> None:
    assert number(value, kind) == text


def test_a_declared_grid_defines_expected_and_additional_tasks(tmp_path: Path) -> None:
    tasks = ("wikitext2", "c4", "c4_sample")
    records = [
        record(competitor=name, tasks=("wikitext2", "c4_sample")) for name in ("owl", "alpha")
    ]
    runs = [DeclaredRun(one.identity, one.config, tasks) for one in records]
    expected = expected_from_runs(runs, {"c4": "not available"}, {"c4_sample"})
    for one in (*records, record(competitor="uniform")):
        save_record(one, tmp_path)
    data = study(tmp_path, expected=expected)
    assert expected.competitors == ("owl", "alpha")
    assert [case.task for case in expected.counted] == ["wikitext2", "c4"]
    parts = tables(data)
    assert named(parts, "perplexity-c4_sample").rows[1][3].text != MISSING
    assert named(parts, "perplexity-c4").rows[1][3].text == MISSING
    assert {row[3].text for row in named(parts, "pairs").rows} == {"2"}
    assert "C4 (1 cases) cannot be run here: not available." in data.notes
    assert "2 of 4 results are missing" in data.notes[0]


def test_competitors_with_the_same_methods_are_named_by_their_other_choices(tmp_path: Path) -> None:
    few = record(competitor="neuroal", sparsity=0.6)
    more = record(
        competitor="neuroal",
        sparsity=0.6,
        calibration=CalibrationConfig(name="c4_sample", search_windows=64),
    )
    owl = record(competitor="owl", sparsity=0.6, rules="reference")
    extra: dict[str, Choices] = {
        few.identity: (("topup", "neuroal"), ("refine", "none")),
        more.identity: (("topup", "neuroal"), ("calibration.search_windows", "64")),
        owl.identity: (("topup", "owl"), ("rules", "reference")),
    }
    for one in (few, more, owl):
        save_record(one, tmp_path)
    runs = [
        DeclaredRun(one.identity, one.config, ("wikitext2",), extra[one.identity])
        for one in (few, more, owl)
    ]
    names = competitor_names(runs)
    assert list(names.values()) == ["neuroal", "neuroal(search_windows=64)", "owl"]
    selection = Selection(identities=frozenset(names), names=names)
    table = named(tables(study(tmp_path, selection, expected_from_runs(runs, {}))), "wins")
    assert {row[1].text for row in table.rows} == {
        "NeuroAL",
        "NeuroAL (search_windows=64)",
        "OWL",
    }


def test_only_records_of_selected_identities_are_read(tmp_path: Path) -> None:
    selected, other = record(), record(calibration=CalibrationConfig(name="c4_sample", windows=8))
    for one in (selected, other):
        save_record(one, tmp_path)
    data = study(tmp_path, Selection(identities=frozenset({selected.identity})))
    assert list(data.results["identity"]) == [selected.identity]
