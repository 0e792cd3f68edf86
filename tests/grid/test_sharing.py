"""Workers that share a grid leave each other's runs alone, at little cost."""

from __future__ import annotations

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
from neuroal.grid.status import RunState, failure_path, state_of, status_of
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
    assert worker.work_off(runs, lambda line: None, wait=3.0).others == {RunState.DONE: 2}
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
    attempted: list[str] = []

    def run(config: RunConfig, **options: object) -> NoReturn:
        attempted.append(config.out)
        raise error

    def other(planned_run: PlannedRun, last_failure: int | None, models: LastModel) -> object:
        if not attempted:  # the other worker fails after this one has begun
            assert worker.attempt(planned_run.config).state is RunState.FAILED
        return real(planned_run, last_failure, models)

    real = worker._outcome
    monkeypatch.setattr("neuroal.run.run", run)
    monkeypatch.setattr(worker, "_outcome", other)
    lines: list[str] = []
    tally = worker.work_off(runs[:1], lines.append)
    assert (tally.own if attempts == 2 else tally.others) == {RunState.FAILED: 1}
    assert len(attempted) == attempts
    assert str(error) in lines[0]
    assert worker.work_off(runs[:1], lines.append).own == {RunState.FAILED: 1}
    assert len(attempted) == attempts + 1  # a worker that begins later tries again
