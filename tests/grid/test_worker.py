"""Workers share a grid; what fails stays local and can be tried again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuroal import cli
from neuroal.cli_grid import planned
from neuroal.grid import worker
from neuroal.grid.command import grid_command
from neuroal.grid.status import State, failure_path, status_of
from neuroal.records.lease import leased
from neuroal.records.summary import STATE, read_summary, summary_path
from tests.grid.small import FOUR, litter, results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of the grid by one worker."""
    out = tmp_path_factory.mktemp("finished")
    assert grid_command(["run", *FOUR, f"out={out}"], planned) == 0
    return out


def test_a_grid_started_again_has_nothing_to_do(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "attempt", None)
    assert grid_command(["run", *FOUR, f"out={finished}"], planned) == 0
    assert "4 runs: 4 done" in capsys.readouterr().err
    assert grid_command(["status", *FOUR, f"out={finished}"], planned) == 0
    assert "4 of 4 results" in capsys.readouterr().out
    assert not litter(finished)


def test_hydras_multirun_makes_the_same_records(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroal", "-m", *FOUR, f"out={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert len(results(tmp_path)) == 4
    assert results(tmp_path) == results(finished)


def test_a_grid_without_m_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroal", "+experiment=zoo"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "add -m" in capsys.readouterr().err


def test_a_failure_leaves_the_rest_running_and_is_retried_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import neuroal.run

    done, real = [], neuroal.run.run
    refused = ["0.6"]

    def run(config: object) -> object:
        done.append(config.sparsity.ratio)  # type: ignore[attr-defined]
        if str(done[-1]) in refused:
            raise RuntimeError("no luck\nat all")
        return real(config)  # type: ignore[arg-type]

    monkeypatch.setattr(neuroal.run, "run", run)
    two = [*FOUR, "refine=none", f"out={tmp_path}"]
    assert grid_command(["run", *two], planned) == 1
    assert "failed" in capsys.readouterr().err
    assert grid_command(["status", *two], planned) == 1
    text = capsys.readouterr().out
    assert "2 runs: 1 done, 0 running, 1 failed, 0 missing" in text
    assert "sparsity=s60" in text
    assert "RuntimeError: no luck" in text
    done.clear()
    assert grid_command(["run", *two], planned) == 1
    assert not done
    refused.clear()
    assert grid_command(["retry", *two], planned) == 0
    assert done == [0.6]
    assert not litter(tmp_path)


def test_a_run_of_another_worker_is_shown_and_waited_for(tmp_path: Path) -> None:
    _, runs = planned([*FOUR, "refine=none", "sparsity=s60", f"out={tmp_path}"])
    lines: list[str] = []
    with leased(tmp_path / STATE / f"{runs[0].identity}.lock"):
        (status,) = status_of(runs)
        assert status.state is State.RUNNING
        assert worker.attempt(runs[0].config).state is State.RUNNING
        assert not failure_path(tmp_path, runs[0].identity).exists()
    assert worker.work_off(runs, lines.append, wait=0.1)[State.DONE] == 1
    assert len(lines) == 1


def test_chunks_make_up_the_grid() -> None:
    from neuroal.grid.command import _chunk

    _, runs = planned(["+experiment=zoo"])
    parts = [_chunk(runs, f"{index}/7") for index in range(1, 8)]
    assert [run for part in parts for run in part] == runs


def test_a_summary_is_believed_only_of_its_record(finished: Path) -> None:
    path = next(finished.glob("*.json"))
    kept = read_summary(path)
    text = summary_path(path).read_text()
    summary_path(path).write_text(text.replace('"builtin"', '"other"'))
    assert read_summary(path) != kept
    summary_path(path).write_text(text.replace('"size": ', '"size": 1'))
    assert read_summary(path) == kept
    summary_path(path).write_text(text)
