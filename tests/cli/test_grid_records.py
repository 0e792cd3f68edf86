"""``neuroal-tables pack``, and tables of packed records."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from neuroal.cli.declared import planned
from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables.cases import Expected
from neuroal.tables.packed import origin_of, unpacked
from tests.cli.test_tables import call
from tests.synthetic import fill, record

GRID = ("experiment=marginal_seeds", "model=zoo/llama", "sparsity=s70", "seed=0")


@pytest.fixture
def grid_folder(tmp_path: Path) -> Path:
    """Records of a grid, with identities that this version of the package would not give."""
    _, runs = planned(GRID)
    for number, run in enumerate(runs):
        fields = record(tasks=("ptb", "wikitext2"), limit=64, seed=number).to_dict()
        config = {**dataclasses.asdict(run.config), "out": str(tmp_path)}
        for entry in fields["metrics"].values():
            entry["seqlen"] = 512
        save_record(Record.from_dict(fields | {"config": config}), tmp_path / "runs")
    save_record(record(competitor="dlp"), tmp_path / "runs")
    return tmp_path / "runs"


def test_a_grid_is_packed_with_its_competitors_and_cases(
    grid_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = grid_folder.parent / "small.parquet"
    code, out, error = call(monkeypatch, capsys, "pack", *GRID, f"out={grid_folder}", "--to", path)
    assert code == 0, error
    assert out.startswith(f"{path}: 8 records, 0.0")
    origin, records = origin_of(path), unpacked(path)
    assert origin.command == f"neuroal-grid run {' '.join(GRID)} out=runs"
    assert set(origin.names) == {one.identity for one in records}
    expected = Expected.from_dict(origin.expected)
    assert set(origin.names.values()) == set(expected.competitors)
    assert {"neuroal", "neuroal(search_windows=8)"} <= set(expected.competitors)
    assert {case.task for case in expected.cases} == {"wikitext2", "ptb", "c4_sample"}


def test_tables_of_a_packed_grid_are_those_of_its_declaration(
    grid_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = grid_folder.parent / "small.parquet"
    call(monkeypatch, capsys, "pack", *GRID, f"out={grid_folder}", "--to", path)
    code, out, _ = call(monkeypatch, capsys, "paper", *GRID, f"out={path}")
    assert code == 0
    assert "8 of 24 results are missing" in out
    page = (path.with_suffix("") / "tables" / "perplexity-ptb.md").read_text()
    assert "| NeuroAL (search\\_windows=8) |" in page
    # Of the folder, this version recognises no record as one of its runs.
    assert call(monkeypatch, capsys, "paper", *GRID, f"out={grid_folder}")[0] == 2


def test_overrides_select_what_is_packed_and_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path, again = (tmp_path / name for name in ("runs", "a.parquet", "b.parquet"))
    fill(folder, competitors=("uniform", "owl"), sparsities=(0.6, 0.7), tasks=("ptb",))
    command = ("pack", f"out={folder}", "sparsity=s60")
    assert call(monkeypatch, capsys, *command, "--to", path)[0] == 0
    assert {one.config["sparsity"]["ratio"] for one in unpacked(path)} == {0.6}
    code, out, _ = call(
        monkeypatch, capsys, "pack", f"out={path}", "pruner=wanda", "--json", "--to", again
    )
    assert (code, json.loads(out)) == (0, {"files": [str(again)]})
    assert len(unpacked(again)) == 4
    for chosen in ((), ("pruner=wanda", "model=zoo/llama")):
        code, out, _ = call(monkeypatch, capsys, "compare", f"out={path}", *chosen)
        whole = call(monkeypatch, capsys, "compare", f"out={folder}", "sparsity=s60", *chosen)
        assert (code, out) == whole[:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "out=RUNS"], "name it as in --to zoo.parquet"),
        (["pack", "out=RUNS", "--to", "records.json"], "name it as in --to zoo.parquet"),
        (["pack", "out=RUNS", "seed=7", "--to", "a.parquet"], "none of its records has seed=7"),
        (["pack", "out=nowhere", "--to", "a.parquet"], "no such folder"),
        (["pack", *GRID, "out=RUNS", "--to", "a.parquet"], "none of its records is of this grid"),
        (["compare", "out=nowhere.parquet"], "cannot be read"),
        (["explain", "some.parquet"], "lacks the ratios of rows"),
    ],
)
def test_a_mistake_in_packing_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_record(record(), tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    words = [word.replace("RUNS", "runs") for word in arguments]
    code, _, error = call(monkeypatch, capsys, *words)
    assert code == 2
    assert error.count("\n") == 1, error
    assert message in error
    assert not list(tmp_path.glob("*.parquet"))


def test_two_records_with_the_same_settings_are_not_packed_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = planned(GRID)
    for number in (0, 1):
        config = dataclasses.asdict(runs[0].config)
        fields = record(seed=number, limit=64).to_dict()
        save_record(Record.from_dict(fields | {"config": config}), tmp_path)
    path = tmp_path / "a.parquet"
    code, _, error = call(monkeypatch, capsys, "pack", *GRID, f"out={tmp_path}", "--to", path)
    assert (code, path.exists()) == (2, False)
    assert "have the same settings; move one away" in error
