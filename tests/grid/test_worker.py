"""Workers share a grid; a failed run does not affect the others and can be retried."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroal.cli import main as cli
from neuroal.cli.declared import planned
from neuroal.cli.grid import grid_command
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.files.lock import leased
from neuroal.files.machine import MachineError
from neuroal.files.sealed import unsealed
from neuroal.grid import worker
from neuroal.grid.status import RunState, failure_path, status_of
from neuroal.models import load
from neuroal.records.summary import STATE_FOLDER, read_summary, summary_path
from tests.grid.small import FOUR, leftovers, results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the records of a grid by one worker."""
    out = tmp_path_factory.mktemp("finished")
    assert grid_command(["run", *FOUR, f"out={out}"]) == 0
    return out


def test_a_finished_grid_has_nothing_to_do(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "attempt", None)
    assert grid_command(["run", *FOUR, f"out={finished}"]) == 0
    assert "4 runs: 4 done" in capsys.readouterr().err
    assert grid_command(["status", *FOUR, f"out={finished}"]) == 0
    assert "4 of 4 results" in capsys.readouterr().out
    assert not leftovers(finished)


def test_hydras_multirun_writes_the_same_records(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroal", "-m", *FOUR, f"out={tmp_path}"])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert not exit_info.value.code
    assert len(results(tmp_path)) == 4
    assert results(tmp_path) == results(finished)


def test_a_grid_without_m_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroal", "+experiment=zoo"])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    assert "add -m" in capsys.readouterr().err


def test_a_failure_does_not_stop_other_runs_and_is_retried_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import neuroal.run

    done, real = [], neuroal.run.run
    refused = ["0.6"]

    def run(config: object, **options: object) -> object:
        done.append(config.sparsity.ratio)  # type: ignore[attr-defined]
        if str(done[-1]) in refused:
            raise RuntimeError("no luck\nat all")
        return real(config, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(neuroal.run, "run", run)
    two = [*FOUR, "refine=none", f"out={tmp_path}"]
    assert grid_command(["run", *two]) == 1
    assert "failed" in capsys.readouterr().err
    assert grid_command(["status", *two]) == 1
    text = capsys.readouterr().out
    assert "2 runs: 1 done, 0 running, 1 failed, 0 missing" in text
    assert "sparsity=s60" in text
    assert "RuntimeError: no luck" in text
    done.clear()
    assert grid_command(["run", *two]) == 1
    assert not done
    refused.clear()
    assert grid_command(["retry", *two]) == 0
    assert done == [0.6]
    assert not leftovers(tmp_path)


def test_a_run_of_another_worker_is_reported_and_awaited(tmp_path: Path) -> None:
    _, runs = planned([*FOUR, "refine=none", "sparsity=s60", f"out={tmp_path}"])
    lines: list[str] = []
    with leased(tmp_path / STATE_FOLDER / f"{runs[0].identity}.lock"):
        (status,) = status_of(runs)
        assert status.state is RunState.RUNNING
        assert worker.attempt(runs[0].config).state is RunState.RUNNING
        assert not failure_path(tmp_path, runs[0].identity).exists()
    assert worker.work_off(runs, lines.append, wait=0.1).own[RunState.DONE] == 1
    assert len(lines) == 1


def test_finished_runs_are_not_silently_left_alone_with_force(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="force=true: neuroal-grid does only what is missing"):
        grid_command(["run", *FOUR, f"out={finished}", "force=true"])


def test_chunks_partition_the_grid() -> None:
    from neuroal.cli.grid import _chunk

    _, runs = planned(["+experiment=zoo"])
    parts = [_chunk(runs, f"{index}/7") for index in range(1, 8)]
    assert [run for part in parts for run in part] == runs


def test_a_summary_is_trusted_only_for_its_record(finished: Path) -> None:
    path = next(finished.glob("*.json"))
    summary = read_summary(path)
    text = summary_path(path).read_text()
    other = unsealed(text).replace('"builtin"', '"other"')
    summary_path(path).write_text(other)
    assert read_summary(path) != summary  # it is read instead of the record
    summary_path(path).write_text(other.replace('"size": ', '"size": 1'))
    assert read_summary(path) == summary
    summary_path(path).write_text(text.replace('"builtin"', '"other"'))
    assert read_summary(path) == summary
    summary_path(path).write_text(text)


def test_a_run_fails_in_one_line_if_its_failure_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a full disk: the other runs are still tried, and the exit code is 1."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "write_json", full)
    monkeypatch.setattr("neuroal.records.resume.leased", full)
    assert grid_command(["run", *FOUR, f"out={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.count("no space left on device; free some space") == 4
    assert error.count(".failed.json: No space left on device") == 4
    assert "0 done now, 4 failed" in error


@pytest.mark.parametrize("content", ["", "[]", '{"reason": 1', "\x00"])
def test_a_damaged_description_of_a_failure_is_named(content: str, tmp_path: Path) -> None:
    _, runs = planned([*FOUR, f"out={tmp_path}"])
    path = failure_path(tmp_path, runs[0].identity)
    path.parent.mkdir()
    path.write_text(content)
    status = next(status_of(runs))
    assert status.state is RunState.FAILED
    assert f"{path.name}: cannot be read" in status.reason


def test_status_and_plan_read_a_folder_that_cannot_be_written(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    assert grid_command(["status", *FOUR, f"out={finished}"]) == 0
    assert "4 of 4 results" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot be written; use a writable location"):
        grid_command(["run", *FOUR, f"out={finished}"])


def broken_gpu(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the second run end the CUDA context of this process; return the ratios of all runs."""
    import neuroal.run

    done, real, broken = list[float](), neuroal.run.run, list[str]()

    def run(config: RunConfig, **options: Any) -> object:
        done.append(config.sparsity.ratio)
        if len(done) >= 2:
            broken.append("CUDA error: unknown error")
            raise torch.AcceleratorError(broken[0])
        return real(config, **options)

    def synchronize(device: object = None) -> None:
        if broken:
            raise torch.AcceleratorError(broken[0])

    monkeypatch.setattr(neuroal.run, "run", run)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", synchronize)
    return done


def test_a_worker_that_has_lost_its_gpu_stops_at_once_and_fails_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = broken_gpu(monkeypatch)
    with pytest.raises(MachineError, match="2 of 4 runs are left") as raised:
        grid_command(["run", *FOUR, f"out={tmp_path}"])
    assert "neuroal-grid run" in str(raised.value)
    assert len(done) == 2
    assert grid_command(["status", *FOUR, f"out={tmp_path}"]) == 1
    text = capsys.readouterr().out
    assert "4 runs: 1 done, 0 running, 1 failed, 2 missing" in text
    assert "AcceleratorError: CUDA error: unknown error; this process cannot use its GPU" in text


def test_hydras_multirun_stops_as_well_when_it_has_lost_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = broken_gpu(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["neuroal", "-m", *FOUR, f"out={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code not in (0, None)
    assert len(done) == 2
    assert "the GPU failed; the further runs are left" in capsys.readouterr().err


def test_a_full_gpu_stops_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = ["cannot run"]

    def check(model: object, where: str) -> None:
        if full:
            raise torch.AcceleratorError(f"CUDA error: out of memory{full.pop()}")

    monkeypatch.setattr("neuroal.models.load._check_runs", check)
    two = [*FOUR, "refine=none", f"out={tmp_path}"]
    assert grid_command(["run", *two]) == 1
    assert "1 done now, 1 failed" in capsys.readouterr().err
    assert grid_command(["status", *two]) == 1
    assert "memory does not suffice (CUDA error: out of memory" in capsys.readouterr().out


def test_a_worker_waits_for_memory_of_a_full_gpu_before_its_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(model: object, where: str) -> None:
        raise MachineError("memory does not suffice") from torch.OutOfMemoryError()

    waits: list[float] = []
    monkeypatch.setattr("neuroal.models.load._check_runs", check)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda device=None: None)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    monkeypatch.setattr(worker.time, "sleep", waits.append)
    _, runs = planned([*FOUR, "refine=none", f"out={tmp_path}"])
    assert worker.work_off(runs, lambda line: None, wait=3.0).own[RunState.FAILED] == 2
    assert waits == [3.0, 3.0]


STAGES = (
    "models.load._check_runs",
    "run.DenseFigures.evaluate",
    "run.allocate",
    "run.evaluate_tasks",
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_failed_run_leaves_no_tensors(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []
    real = load.read_whole

    def read_whole(*arguments: Any) -> Any:
        model = real(*arguments)
        models.append(weakref.ref(model))
        return model

    def fail(*_arguments: object, **_settings: object) -> None:
        error = torch.OutOfMemoryError("CUDA out of memory")
        error.itself = error  # type: ignore[attr-defined]  # a cycle that keeps all frames alive
        raise error

    monkeypatch.setattr(load, "read_whole", read_whole)
    monkeypatch.setattr(f"neuroal.{stage}", fail)
    _, runs = planned([*FOUR, "refine=none", "sparsity=s60", f"out={tmp_path}"])
    gc.disable()
    try:
        assert worker.attempt(runs[0].config).state is RunState.FAILED
        assert [model() for model in models] == [None]
    finally:
        gc.enable()
