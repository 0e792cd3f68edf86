"""Workers that share a grid leave each other's runs alone, at little cost."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from neuroal.cli.declared import planned
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.files.lock import leased
from neuroal.files.machine import MachineError
from neuroal.grid import worker
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, failure_path, read_failure, state_of, status_of
from neuroal.models.last import LastModel
from neuroal.records.summary import STATE_FOLDER
from tests.grid.small import FOUR


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """Return two runs of a new grid."""
    return planned([*FOUR, "refine=none", f"out={tmp_path}"])[1]


def test_a_run_that_another_worker_finished_is_not_attempted(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, attempted = worker.attempt, []

    def attempt(config: RunConfig, models: object = None) -> worker.Outcome:
        attempted.append(config)
        for planned_run in runs:
            assert real(planned_run.config).state is RunState.DONE  # as by another worker
        return worker.Outcome(RunState.DONE)

    monkeypatch.setattr(worker, "attempt", attempt)
    lines: list[str] = []
    tally = worker.work_off(runs, lines.append)
    assert str(tally) == "1 done now, 0 failed; by other workers 1 done, 0 failed"
    assert attempted == [runs[0].config]
    assert len(lines) == 1


def test_checks_of_a_run_that_another_worker_holds_become_rarer(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setattr(
        worker, "state_of", lambda run: RunState.RUNNING if len(waits) < 5 else RunState.DONE
    )
    lines: list[str] = []
    assert worker.work_off(runs, lines.append, wait=3.0).others == {RunState.DONE: 2}
    assert lines == ["waiting for 2 of 2 runs, which other workers do"]
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]


@contextmanager
def _held(run: PlannedRun) -> Iterator[None]:
    with leased(run.record_path.parent / STATE_FOLDER / f"{run.identity}.lock"):
        yield


def test_the_state_of_one_run_is_that_in_the_grid(runs: list[PlannedRun]) -> None:
    first, out = runs[0], runs[0].record_path.parent

    def state() -> RunState:
        (status,) = status_of([first])
        assert state_of(first) is status.state
        return status.state

    assert state() is RunState.MISSING
    with _held(first):
        assert state() is RunState.RUNNING
    failure = failure_path(out, first.identity)
    failure.write_text('{"reason": "no luck"}')
    assert state() is RunState.FAILED
    assert worker.attempt(first.config).state is RunState.DONE
    assert state() is RunState.DONE
    cut_off = out / STATE_FOLDER / f"{first.identity}.plan"
    cut_off.write_bytes(b"")
    assert state() is RunState.MISSING


def test_the_record_of_a_run_that_another_worker_holds_is_not_looked_for(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[Path] = []
    real = Path.exists

    def exists(path: Path) -> bool:
        looked_for.append(path)
        return real(path)

    monkeypatch.setattr(Path, "exists", exists)
    with _held(runs[0]):
        assert state_of(runs[0]) is RunState.RUNNING
        assert runs[0].record_path not in looked_for
    assert state_of(runs[0]) is RunState.MISSING
    assert runs[0].record_path in looked_for


def failing(runs: list[PlannedRun], error: Exception, patch: pytest.MonkeyPatch) -> list[str]:
    """Let `runs` fail, first in another worker after this one has begun; return the attempts."""
    attempted: list[str] = []

    def run(config: RunConfig, **options: object) -> NoReturn:
        attempted.append(config.out)
        raise error

    def other(planned_run: PlannedRun, last_failure: int | None, models: LastModel) -> object:
        if not attempted:
            with pytest.MonkeyPatch.context() as there:
                there.setattr("socket.gethostname", lambda: host)
                assert worker.attempt(planned_run.config).state is RunState.FAILED
        return real(planned_run, last_failure, models)

    host, real = socket.gethostname(), worker._outcome
    patch.setattr("neuroal.run.run", run)
    patch.setattr(worker, "_outcome", other)
    return attempted


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(UserError("no luck"), 1), (ValueError("no luck"), 1), (MachineError("no memory"), 2)],
)
def test_a_run_fails_in_one_worker_only_unless_the_machine_is_the_reason(
    error: Exception,
    attempts: int,
    runs: list[PlannedRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempted = failing(runs, error, monkeypatch)
    lines: list[str] = []
    tally = worker.work_off(runs[:1], lines.append)
    assert (tally.own if attempts == 2 else tally.others) == {RunState.FAILED: 1}
    assert len(attempted) == attempts
    assert str(error) in lines[0]
    assert ("by another worker" in lines[0]) == (attempts == 1)
    assert worker.work_off(runs[:1], lines.append).own == {RunState.FAILED: 1}
    assert len(attempted) == attempts + 1  # a worker that begins later tries again


def test_a_machine_that_lacks_a_file_does_not_use_up_the_runs_of_others(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempted = failing(runs, UserError("data.root=/local: no such folder"), monkeypatch)
    monkeypatch.setattr("socket.gethostname", lambda: "intact")
    assert worker.work_off(runs[:1], lambda line: None).own == {RunState.FAILED: 1}
    assert len(attempted) == 2
    first = failure_path(runs[0].record_path.parent, runs[0].identity)
    assert len(read_failure(first).machines) == 2


def test_an_error_of_the_file_system_does_not_stop_the_other_runs(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def state_of(planned_run: PlannedRun) -> NoReturn:
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr(worker, "state_of", state_of)
    assert worker.work_off(runs, lambda line: None).own == {RunState.DONE: 2}


def test_a_failure_that_another_worker_deletes_is_none(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)  # deleted just after this
    assert worker._last_failure(runs[0]) is None
