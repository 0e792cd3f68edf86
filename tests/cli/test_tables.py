"""``neuroal-tables``: overrides select the records of tables and reports."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuroal.cli import tables
from neuroal.cli.compose import composed
from neuroal.cli.declared import planned
from neuroal.config.schema import CalibrationConfig
from neuroal.files.atomic import write_bytes
from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.run import run
from tests.synthetic import fill, record


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    competitors = ("uniform", "uniform+dsnot", "owl")
    fill(folder, competitors=competitors, sparsities=(0.6, 0.7), tasks=("ptb", "rte"))
    return folder


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run ``neuroal-tables ARGUMENTS``; return exit code, output and error output."""
    monkeypatch.setattr(sys, "argv", ["neuroal-tables", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        tables.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_paper_writes_every_table_in_every_format(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "paper", f"out={records}")
    assert code == 0
    stems = {"perplexity-ptb", "zero-shot", "relative-to-uniform", "wins", "runtime", "missing"}
    stems |= {"performance-runtime", "pairs", "combinations-ptb"}
    names = {f"{s}.{form}" for s in stems for form in ("md", "tex", "csv", "parquet")}
    assert {path.name for path in (records / "tables").iterdir()} == names
    assert "perplexity-ptb.md" in out


def test_overrides_select_and_several_values_are_alternatives(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("topup=uniform,owl", "refine=none", "sparsity=s60", "model=zoo/llama")
    code, out, _ = call(
        monkeypatch, capsys, "compare", f"out={records}", *chosen, "task.names=[ptb]"
    )
    assert code == 0
    lines = [line.split() for line in out.splitlines() if line.startswith("Uniform")]
    assert [line[:4] for line in lines] == [
        ["Uniform", "OWL", "perplexity", "2"]
    ]  # a case per pruner
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("perplexity")] == [
        ["perplexity", "Uniform"],
        ["perplexity", "OWL"],
    ]


def test_a_key_selects_among_records_of_the_same_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for windows in (8, 128):
        calibration = CalibrationConfig(name="c4_sample", windows=windows)
        for name in ("uniform", "owl"):
            save_record(record(competitor=name, calibration=calibration), tmp_path)
    arguments = ("compare", f"out={tmp_path}", "calibration=c4_sample")
    code, _, error = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "select one, as in calibration.windows=" in error
    code, out, _ = call(monkeypatch, capsys, *arguments, "calibration.windows=8")
    assert code == 0
    assert "calibration.windows=8" in out


def test_tables_of_a_grid_use_its_records_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["+experiment=zoo", f"out={tmp_path}", "model=zoo/llama", "sparsity=s70"]
    grid += ["pruner=wanda", "topup=uniform,owl", "refine=none"]
    _, runs = planned(grid)
    for first in runs[:1]:
        tasks = ("wikitext2", "c4_sample", "rte")
        values = record(tasks=tasks).to_dict() | {"identity": first.identity}
        save_record(
            Record.from_dict(values | {"config": dataclasses.asdict(first.config)}), tmp_path
        )
    save_record(record(), tmp_path)  # has another calibration
    code, out, _ = call(monkeypatch, capsys, "paper", *grid)
    assert code == 0
    assert "18 of 20 results are missing" in out  # ten cases for each of two competitors
    assert "C4 (1 cases) cannot be run here" in out
    names = {path.stem for path in (tmp_path / "tables").glob("perplexity-*.csv")}
    assert names == {f"perplexity-{task}" for task in ("wikitext2", "ptb", "c4", "c4_sample")}


def test_tables_read_what_a_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model=zoo/llama", "pruner=magnitude", "calibration.windows=1", "task.limit=1"]
    small.append("task.seqlen=32")
    for topup in ("uniform", "owl"):
        last, _ = run(composed([*small, f"topup={topup}", f"out={tmp_path}"]))
    code, _, error = call(monkeypatch, capsys, "paper", f"out={tmp_path}", *small)
    assert code == 0, error
    text = (tmp_path / "tables" / "perplexity-builtin.csv").read_text()
    assert str(last.metrics["builtin"]["pruned"]["value"]) in text
    assert last.identity in text


def test_report_prints_its_path(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "report", f"out={records}", "sparsity=s70")
    assert code == 0
    assert Path(out.strip()) == records / "report.html"
    assert "70 %" in (records / "report.html").read_text()


def test_figures_are_written_as_svg_and_pdf_and_printed(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("figures", f"out={records}", "model=zoo/llama", "pruner=wanda")
    code, out, _ = call(monkeypatch, capsys, *command)
    assert code == 0
    paths = [Path(line) for line in out.splitlines()]
    assert all(path.parent == records / "figures" for path in paths)
    kinds = {(path.name.split("-")[0], path.suffix) for path in paths}
    assert kinds == {(k, s) for k in ("perplexity", "performance") for s in (".svg", ".pdf")}
    before = {path: path.read_bytes() for path in paths}
    for path, content in before.items():
        if path.suffix == ".svg":  # with the names of the top-ups: in the legend or at the points
            assert b"<svg" in content
            assert b"OWL" in content
        else:
            assert content.startswith(b"%PDF")
    call(monkeypatch, capsys, *command)
    assert {path: path.read_bytes() for path in paths} == before


def test_limited_results_need_the_flag_or_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_record(record(limit=8), tmp_path)
    save_record(record(competitor="owl", limit=8), tmp_path)
    code, _, error = call(monkeypatch, capsys, "compare", f"out={tmp_path}")
    assert code == 2
    assert "--limited" in error
    for more in ("--limited", "task.limit=8"):
        code, out, _ = call(monkeypatch, capsys, "compare", f"out={tmp_path}", more)
        assert code == 0
        assert "LIMITED: WikiText-2 on 8" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["papr"], "did you mean 'paper'"),
        (["paper", "--limted"], "did you mean '--limited'"),
        (["paper", "--to"], "--to FOLDER"),
        (["paper", "out=nowhere"], "no such folder"),
        (["paper", "topup=neural"], "did you mean 'neuroal'"),
        (["paper", "topupp=owl"], "did you mean 'topup'"),
        (["compare", "topup=owl"], "needs two"),
        (["paper", "seed=7"], "none of its records has seed=7"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    records: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not any(argument.startswith("out=") for argument in arguments):
        arguments = [arguments[0], f"out={records}", *arguments[1:]]
    if arguments[0] == "papr":
        arguments = ["papr"]
    code, _, error = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert error.count("\n") == 1, error
    assert error.startswith("neuroal: ")
    assert message in error


def test_tables_need_no_torch() -> None:
    code = "import sys, neuroal.cli.tables, neuroal.tables.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_lists_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "--help")
    assert code == 0
    for command in ("paper", "report", "compare"):
        assert f"\n  {command} " in out


def test_tables_of_a_folder_that_cannot_be_written_go_elsewhere(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(path: Path, data: bytes) -> None:
        if records in path.parents:
            raise OSError(30, "Read-only file system", str(path))
        write_bytes(path, data)

    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr("neuroal.tables.formats.write_bytes", read_only)
    assert call(monkeypatch, capsys, "compare", f"out={records}")[0] == 0
    code, _, error = call(monkeypatch, capsys, "paper", f"out={records}")
    assert code == 2
    assert error.count("\n") == 1
    assert "cannot be written (Read-only file system); name a writable folder with --to" in error
    elsewhere = records.parent / "elsewhere"
    assert call(monkeypatch, capsys, "paper", f"out={records}", "--to", elsewhere)[0] == 0
    assert any(elsewhere.iterdir())
