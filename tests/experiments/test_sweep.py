"""The scripts behind `results/`: sweeps go on where they were; their tables say what was done."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import demo_picture  # noqa: E402
import dsnot_cycles  # noqa: E402
import sweep  # noqa: E402
import topups  # noqa: E402
import zoo_table  # noqa: E402

from neuroal.records.schema import Record  # noqa: E402

FEW = ["--families", "opt", "--limit", "2", "--windows", "2"]


@pytest.fixture
def few(tmp_path: Path) -> sweep.Setting:
    return sweep.Setting(tmp_path, "cpu", windows=2, limit=2)


def test_a_case_is_done_once(few: sweep.Setting, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [sweep.Case("opt"), sweep.Case("opt", "magnitude", sparsity=0.5)]
    first = sweep.sweep(cases, few, jobs=1)
    assert "2/2" in capsys.readouterr().out
    again = sweep.sweep([*cases, sweep.Case("opt", "wanda", sparsity=0.5)], few, jobs=1)
    assert "1/1" in capsys.readouterr().out
    assert {name: again[name] for name in first} == first
    assert again["opt-wanda-uniform-50.json"]["calibration_tokens"] == {
        "allocate": 0,
        "prune": 2 * 512,
    }


def test_every_case_starts_from_the_dense_model(few: sweep.Setting) -> None:
    dense = sweep.measure(sweep.Case("opt"), few)["perplexity"]
    pruned = sweep.measure(sweep.Case("opt", "magnitude", sparsity=0.5), few)
    assert pruned["perplexity"] > dense
    assert pruned["sparsity"] == pytest.approx(0.5)
    assert sweep.measure(sweep.Case("opt"), few)["perplexity"] == dense


def test_what_cannot_be_combined_is_noted_and_the_sweep_goes_on(few: sweep.Setting) -> None:
    rows = sweep.Method("rows", "neuroal", {"step": "row"})
    cases = [sweep.Case("opt", "sparsegpt", rows, 0.5), sweep.Case("opt")]
    found = sweep.sweep(cases, few, jobs=1)
    assert "topup.step=row" in found[cases[0].file]["refused"]
    assert found[cases[1].file]["perplexity"] > 1


def test_a_case_that_fails_costs_no_other_and_is_tried_again(
    few: sweep.Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [sweep.Case("opt", "magnitude", sparsity=0.5), sweep.Case("opt")]

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(sweep.neuroal, "prune", fail)
        assert list(sweep.sweep(cases, few, jobs=1)) == ["opt-dense.json"]
    assert "out of memory" in capsys.readouterr().out
    assert len(sweep.sweep(cases, few, jobs=1)) == 2


def test_kept_results_are_not_measured_again(
    few: sweep.Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [sweep.Case("opt", "magnitude", sparsity=0.5), sweep.Case("opt")]
    file = tmp_path / "kept.jsonl"
    first = replace(few, out=tmp_path / "a", kept=file)
    other = replace(first, out=tmp_path / "b", limit=1)
    measured = sweep.sweep(cases, first, jobs=1)
    assert sweep.sweep(cases[1:], other, jobs=1)  # under other terms: beside the first ones

    def fail(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(sweep, "measure", fail)
    again = sweep.sweep(cases, replace(first, out=tmp_path / "c"), jobs=1)
    assert {name: found["perplexity"] for name, found in again.items()} == {
        name: found["perplexity"] for name, found in measured.items()
    }
    assert len(file.read_text().splitlines()) == 3
    more = [*cases, sweep.Case("phi")]
    assert len(sweep.sweep(more, replace(first, seconds=0), jobs=1)) == 2


def test_cases_have_files_of_their_own() -> None:
    methods = topups.methods()
    cases = [
        sweep.Case("opt", "wanda", method, ratio) for method in methods for ratio in (0.6, 0.7)
    ]
    names = {case.file for case in cases}
    assert len(names) == len(cases)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert {"uniform", "neuroal", "owl", "alpha", "dlp", "atp"} <= {m.name for m in methods}


@pytest.mark.parametrize(
    ("script", "options", "shown"),
    [
        (zoo_table, [], ["| zoo/opt | wanda |", "Kneser-Ney"]),
        (
            topups,
            ["--pruners", "wanda", "--methods", "uniform", "owl", "--kept", "kept.jsonl"],
            ["| owl |", "zoo/opt"],
        ),
    ],
    ids=["zoo_table", "topups"],
)
def test_a_script_prints_its_table(
    script: object,
    options: list[str],
    shown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(getattr(script, "__file__", ""))
    monkeypatch.setattr(sys, "argv", [path, *FEW, *options, "--out", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    getattr(script, "main")()  # noqa: B009
    page = capsys.readouterr().out
    for text in (*shown, f"python experiments/{Path(path).name}"):
        assert text in page


def test_dsnot_walks_on_or_stops(few: sweep.Setting) -> None:
    for end in dsnot_cycles.ENDS:
        case = sweep.Case("opt", "magnitude", dsnot_cycles.method(end, 3), 0.5)
        assert sweep.measure(case, few)["sparsity"] == pytest.approx(0.5)


def test_the_demos_picture_is_drawn(tmp_path: Path) -> None:
    linears = {f"{block}.q": 0.5 + 0.1 * block for block in range(3)}
    report = {
        f"{name}_{step}": value
        for step in ("block", "row")
        for name, value in (("candidates", [0.1, 0.2]), ("criterion", [3.0, 2.0]), ("lambda", 0.2))
    }
    sparsity = {"overall": 0.6, "linears": linears}
    record = Record("a", {}, {}, {}, {}, {"report": report}, sparsity, {}, {})
    densities = demo_picture.block_densities(record)
    assert densities == pytest.approx({0: 0.5, 1: 0.4, 2: 0.3})
    path = demo_picture.draw([("uniform", record), ("neuroal", record)], tmp_path / "p" / "d.png")
    assert path.read_bytes().startswith(b"\x89PNG")
