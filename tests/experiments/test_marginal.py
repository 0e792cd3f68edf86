"""The studies behind results/marginal.md: a run is made once, and the page says what was found."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.rows import write_jsonl

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import marginal
import marginal_tables
from studies import STUDIES, TIMED

TEXT = "the old sea was calm and the ship went on under a pale sky toward the cape " * 400


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "marginal.csv"


def add(table: Path, study: str, name: str, perplexity: float = 100.0, **more: object) -> None:
    row = {"study": study, "name": name, "jobs": 1, "allocate": 30.5, "error": ""}
    marginal.add(row | dict.fromkeys(marginal.TASKS, perplexity) | more, table)


def rows_of(file: Path) -> list[tuple[str, str]]:
    with file.open(newline="") as opened:
        return [(row["study"], row["name"]) for row in csv.DictReader(opened)]


def test_a_run_stands_for_the_same_one_in_another_study(table: Path) -> None:
    add(table, "quality", "70 %: marginal both", 116.4)
    marginal.take_over("generality", table)
    marginal.take_over("generality", table)
    assert rows_of(table)[1:] == [
        ("generality", "seed 0: marginal both"),
        ("generality", "64 windows: marginal both"),
    ]
    assert marginal.finished(table)["generality", "64 windows: marginal both"]["ptb"] == "116.4"


@pytest.mark.parametrize("study", TIMED)
def test_but_not_where_it_was_alone_on_its_device(table: Path, study: str) -> None:
    add(table, "quality", "70 %: marginal both")
    marginal.take_over(study, table)
    assert len(rows_of(table)) == 1
    add(table, study, "marginal both" if study == "seconds" else "25 + 60 iterations")
    marginal.take_over("ablation", table)
    assert rows_of(table)[2:] == [("ablation", "as it is")]  # from quality, once


def test_nor_where_it_leaves_a_plan_that_another_run_reads(table: Path) -> None:
    add(table, "generality", "seed 0: neuroal both, 64 windows")
    marginal.take_over("quality", table)
    assert len(rows_of(table)) == 1


def test_a_run_that_failed_is_no_run(table: Path) -> None:
    add(table, "quality", "70 %: marginal both", error="RuntimeError: out of memory")
    assert not marginal.finished(table)


def test_the_page_shows_what_is_there(tmp_path: Path, table: Path) -> None:
    for name, perplexity in (
        ("80 %: marginal both", 201.27),
        ("80 %: neuroal both, 8 windows", 30387.0),
        ("80 %: neuroal both, 64 windows", 1487.2),
        ("80 %: uniform", 19002.7),
    ):
        add(table, "quality", name, perplexity)
    add(table, "iterations", "50 + 120 iterations", 111.5)
    add(table, "iterations", "5 + 12 iterations", 175.2, jobs=3)
    add(table, "ablation", "band 0.3", 132.9)
    add(table, "seconds", "uniform", 1256.1, device="a card")
    page = tmp_path / "page.md"
    marks = ("quality", "ratios", "iterations", "ablation", "zoo")
    page.write_text("Before\n" + "".join(f"<!-- {mark} -->\nold\n<!-- end -->\n" for mark in marks))
    marginal_tables.write_page(pd.read_csv(table), page)
    text = page.read_text()
    assert text.startswith("Before\n")
    assert "old" not in text
    assert "| marginal both | 201.3 |" in text
    assert "| 80 % | 0.135 | 0.135 | 0.135 |" in text
    # In the study's order; seconds only where nothing else was on the device.
    fewer = text.index("| 5 + 12 iterations | 175.2 | 175.2 | 175.2 | – |")
    assert fewer < text.index("| 50 + 120 iterations | 111.5 | 111.5 | 111.5 | 30.5 |")
    assert "| band 0.3 | 132.9 | 132.9 | 132.9 |\n" in text
    assert page.with_suffix(".png").stat().st_size > 1000


def test_names_of_all_studies_differ_and_list_shows_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["marginal.py", "list"])
    marginal.main()
    shown = capsys.readouterr().out.splitlines()
    assert len(set(shown)) == len(shown) == sum(map(len, STUDIES.values()))


@pytest.mark.slow
def test_a_study_is_run_and_gone_on_with(
    tmp_path: Path,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    for name, split, rows in (
        ("wikitext-2-raw-v1", "test", [{"text": TEXT}]),
        ("ptb_text_only", "test", [{"sentence": TEXT}]),
        ("ptb_text_only", "validation", [{"sentence": TEXT}]),
        ("c4_sample", "sample", [{"text": "the ship went on toward the cape"}] * 1480),
    ):
        write_jsonl(data / name / f"{split}.jsonl", rows)
    small = ["model=zoo/opt", "task.limit=2", "task.seqlen=64"]
    small += [f"calibration.{key}" for key in ("windows=2", "search_windows=1", "seqlen=32")]
    places = ["--data", str(data), "--out", str(tmp_path / "runs"), "--threads", "1"]
    command = ["marginal.py", "run", "quality", "--only", "50 %: uniform", *places, "--set", *small]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        marginal.main()
    assert "--table" in capsys.readouterr().err  # another protocol's rows go somewhere else
    monkeypatch.setattr(sys, "argv", [*command, "--table", str(table)])
    marginal.main()
    marginal.main()
    (row,) = marginal.finished(table).values()
    assert float(row["wikitext2"]) > 1
    assert row["device"].startswith("CPU")
    assert (tmp_path / "runs" / "texts" / "ptb.txt").read_text() == TEXT
