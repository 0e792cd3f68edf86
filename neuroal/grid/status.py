"""The status of the runs of a grid, from the files in ``out``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from neuroal.errors import shortened
from neuroal.files.lock import is_held
from neuroal.files.sealed import DAMAGE
from neuroal.grid.planning import PlannedRun
from neuroal.records.summary import STATE_FOLDER, Summary, read_summary


class RunState(StrEnum):
    """State of a run."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True)
class Status:
    """Status of one run.

    Attributes:
        state: state of the run; an interrupted run is `RunState.MISSING`.
        lacking: tasks that are not evaluated yet.
        reason: reason of a failure, in one line.
        summary: summary of its record; None if there is no record.
    """

    state: RunState
    lacking: tuple[str, ...]
    reason: str = ""
    summary: Summary | None = None


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        reason: the reason, in one line.
        of_machine: whether the machine was the reason, such as a full disk.
        machines: names of the machines on which the run has failed.
    """

    reason: str
    of_machine: bool = False
    machines: frozenset[str] = frozenset()


def failure_path(out: Path, identity: str) -> Path:
    """Return the path of the file that describes a failure."""
    return out / STATE_FOLDER / f"{identity}.failed.json"


def read_failure(path: Path) -> Failure:
    """Read the file that describes a failure."""
    try:
        report = json.loads(path.read_text())
        machines = frozenset(map(str, report.get("machines", ())))
        return Failure(str(report["reason"]), bool(report.get("of_machine")), machines)
    except (OSError, *DAMAGE) as error:
        return Failure(f"{path.name}: cannot be read ({shortened(error)})", of_machine=True)


def status_of(runs: Sequence[PlannedRun]) -> Iterator[Status]:
    """Yield the status of each of `runs`, in order."""
    names: dict[Path, set[str]] = {}
    for planned in runs:
        out = planned.record_path.parent
        if out not in names:
            names[out] = _names(out) | {
                f"{STATE_FOLDER}/{name}" for name in _names(out / STATE_FOLDER)
            }
        yield _status(planned, names[out])


def state_of(planned: PlannedRun) -> RunState:
    """Return the state of one run; cheaper than `status_of` where a folder has many records.

    A run that a worker holds is `RunState.RUNNING`, also if it has all tasks. Its record is not
    looked for, because NFS may remember for a minute that there is none, and the run be repeated.
    """
    out, stem = planned.record_path.parent, f"{STATE_FOLDER}/{planned.identity}"
    if is_held(out / f"{stem}.lock"):
        return RunState.RUNNING
    endings = ("plan", "masks.npz", "failed.json")
    names = (planned.record_path.name, *(f"{stem}.{ending}" for ending in endings))
    return _status(planned, {name for name in names if (out / name).exists()}).state


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def _status(planned: PlannedRun, names: set[str]) -> Status:
    path, task = planned.record_path, planned.config.task
    summary = read_summary(path) if path.name in names else None
    lacking = tuple(task.names if summary is None else summary.lacks(task, planned.data))
    stem = f"{STATE_FOLDER}/{planned.identity}"
    is_clean = names.isdisjoint({f"{stem}.plan", f"{stem}.masks.npz"})  # else cut off at the end
    if summary is not None and not lacking and not summary.lacks_samples(task) and is_clean:
        return Status(RunState.DONE, (), summary=summary)
    if f"{stem}.lock.0" in names and is_held(path.parent / f"{stem}.lock"):
        return Status(RunState.RUNNING, lacking, summary=summary)
    if f"{stem}.failed.json" in names:
        reason = read_failure(failure_path(path.parent, planned.identity)).reason
        return Status(RunState.FAILED, lacking, reason, summary)
    return Status(RunState.MISSING, lacking, summary=summary)
