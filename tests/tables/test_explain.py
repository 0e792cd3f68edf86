"""``neuroal-tables explain RECORD``: densities, rows and search of one run, as text and plots."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from neuroal.cli import tables
from neuroal.errors import UserError
from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables import formats
from neuroal.tables.explain import Explanation, kind_of, write_explanation
from tests.synthetic import record

SPARSITIES = {
    **{"0.mlp.up_proj": 0.5, "0.mlp.down_proj": 0.7},
    **{"1.mlp.experts.0.up_proj": 0.8, "1.mlp.experts.1.up_proj": 0.6},
}
ROWS = {"0.mlp.up_proj": [0.25, 0.75, 0.5], "0.mlp.down_proj": 0.7}
SEARCH = {
    **{"candidates_block": [0.1, 0.2], "criterion_block": [0.5, 0.25], "lambda_block": 0.2},
    "loss": [3.0, 1.0, 2.0],
}


@pytest.fixture
def searched() -> Record:
    return dataclasses.replace(
        record(competitor="neuroal"),
        plan={"sparsity": 0.7, "ratios": ROWS, "report": SEARCH},
        sparsity={"overall": 0.65, "linears": SPARSITIES},
    )


def text_of(explanation: Explanation) -> str:
    return "\n".join(map(formats.terminal, explanation.tables()))


def test_density_is_listed_by_block_and_kind_of_linear(searched: Record) -> None:
    densities = Explanation.of(searched).densities.set_index(["block", "kind"])["density"]
    assert densities[0, "mlp.up_proj"] == 0.5
    assert densities[1, "mlp.experts.*.up_proj"] == pytest.approx(0.3)  # mean of the experts
    assert kind_of("3.mlp.experts.17.up_proj") == "mlp.experts.*.up_proj"


def test_the_rows_that_kept_most_come_first(searched: Record) -> None:
    rows = Explanation.of(searched).rows
    assert list(rows["row"]) == [0, 2, 1]
    assert list(rows["density"]) == [0.75, 0.5, 0.25]
    assert set(rows["linear"]) == {"0.mlp.up_proj"}


def test_the_criterion_of_every_candidate_is_listed_and_the_chosen_one_marked(
    searched: Record,
) -> None:
    text = text_of(Explanation.of(searched))
    assert "blocks  0.1        0.5" in text
    assert "blocks  0.2      0.25*" in text
    assert "loss         3      3       1        3     2" in text


def test_the_page_holds_text_data_and_plots_for_a_paper(searched: Record, tmp_path: Path) -> None:
    paths = write_explanation(Explanation.of(searched), tmp_path)
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()}
    page, latex = ((tmp_path / f"explained.{form}").read_text() for form in ("md", "tex"))
    for plot in ("density", "rows", "criterion"):
        assert f"({plot}.svg)" in page
        assert f"{{{plot}.pdf}}" in latex
        assert (tmp_path / f"{plot}.svg").read_text().startswith("<?xml")
        assert (tmp_path / f"{plot}.pdf").read_bytes().startswith(b"%PDF")
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 3
    first = {path: path.read_bytes() for path in paths}
    write_explanation(Explanation.of(searched), tmp_path)
    assert first == {path: path.read_bytes() for path in paths}


def test_a_plan_without_rows_or_search_has_its_densities_alone(
    searched: Record, tmp_path: Path
) -> None:
    plan = {"sparsity": 0.7, "ratios": {"0.mlp.up_proj": 0.7}, "report": {}}
    explanation = Explanation.of(dataclasses.replace(searched, plan=plan))
    assert [table.name for table in explanation.tables()] == ["density"]
    assert not (set(explanation.figures()) - {"density"})


def test_the_command_prints_the_tables_and_the_paths(
    searched: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_record(searched, tmp_path)
    tables.tables_command(["explain", str(path)])
    out = capsys.readouterr().out
    assert "Density by block" in out
    assert str(tmp_path / "explained" / searched.identity / "explained.md") in out
    tables.tables_command(["explain", str(path), "--to", str(tmp_path / "page")])
    assert (tmp_path / "page" / "explained.tex").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain"], "needs one record"),
        (["explain", "a.json", "b.json"], "needs one record"),
        (["explain", "nowhere.json"], "record nowhere.json: "),
    ],
)
def test_a_missing_record_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tables.tables_command(arguments)
