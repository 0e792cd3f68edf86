"""How far the runs of a grid are, from the files in ``out`` alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from neuroal.grid.planning import PlannedRun
from neuroal.records.lease import is_held
from neuroal.records.summary import STATE, Summary, read_summary


class State(StrEnum):
    """Where a run stands."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True)
class Status:
    """Where one run stands.

    Attributes:
        state: see there; a run that was cut off is missing.
        lacking: tasks that are still to be measured.
        reason: why it failed, in one line.
        summary: what has been measured.
    """

    state: State
    lacking: tuple[str, ...]
    reason: str = ""
    summary: Summary | None = None


def failure_path(out: Path, identity: str) -> Path:
    """Where is kept why a run failed."""
    return out / STATE / f"{identity}.failed.json"


def status_of(runs: Sequence[PlannedRun]) -> Iterator[Status]:
    """The status of each of `runs`, in their order."""
    names: dict[Path, set[str]] = {}
    for planned in runs:
        out = planned.record_path.parent
        if out not in names:
            names[out] = _names(out) | {f"{STATE}/{name}" for name in _names(out / STATE)}
        yield _status(planned, names[out])


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def _status(planned: PlannedRun, names: set[str]) -> Status:
    path, task = planned.record_path, planned.config.task
    summary = read_summary(path) if path.name in names else None
    lacking = tuple(task.names if summary is None else summary.lacks(task))
    kept = f"{STATE}/{planned.identity}"
    tidy = names.isdisjoint({f"{kept}.plan", f"{kept}.masks.npz"})  # else cut off at the very end
    if summary is not None and not lacking and tidy:
        return Status(State.DONE, (), summary=summary)
    if f"{kept}.lock.0" in names and is_held(path.parent / f"{kept}.lock", now=time.time()):
        return Status(State.RUNNING, lacking, summary=summary)
    if f"{kept}.failed.json" in names:
        reason = _reason(failure_path(path.parent, planned.identity))
        return Status(State.FAILED, lacking, reason, summary)
    return Status(State.MISSING, lacking, summary=summary)


def _reason(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["reason"])
    except (OSError, ValueError, KeyError) as error:
        return f"{path.name}: cannot be read ({error})"
