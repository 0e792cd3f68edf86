"""Workers share a grid; a failed run does not affect the others and can be retried."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from neuroal.cli import main as cli
from neuroal.cli.declared import planned
from neuroal.cli.grid import grid_command
from neuroal.errors import UserError
from neuroal.files.lock import leased
from neuroal.grid import worker
from neuroal.grid.status import RunState, failure_path, status_of
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
    assert worker.work_off(runs, lines.append, wait=0.1)[RunState.DONE] == 1
    assert len(lines) == 1


def test_chunks_partition_the_grid() -> None:
    from neuroal.cli.grid import _chunk

    _, runs = planned(["+experiment=zoo"])
    parts = [_chunk(runs, f"{index}/7") for index in range(1, 8)]
    assert [run for part in parts for run in part] == runs


def test_a_summary_is_trusted_only_for_its_record(finished: Path) -> None:
    path = next(finished.glob("*.json"))
    summary = read_summary(path)
    text = summary_path(path).read_text()
    summary_path(path).write_text(text.replace('"builtin"', '"other"'))
    assert read_summary(path) != summary
    summary_path(path).write_text(text.replace('"size": ', '"size": 1'))
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
