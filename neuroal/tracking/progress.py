"""Progress of a run: what reports it, and what receives it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Step(Protocol):
    """A stage in progress."""

    def advance(self, count: int = 1, **info: object) -> None:
        """Report `count` more completed units, and show `info` beside the counter."""


class Progress(Protocol):
    """Receives progress updates for every stage of a run."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]:
        """Return a context manager for a stage of `total` units."""


class SilentStep:
    """Shows nothing."""

    def advance(self, count: int = 1, **info: object) -> None:
        return


class QuietProgress:
    """Shows nothing."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]:
        return nullcontext(SilentStep())


class Portion:
    """Reports the completed share of a piece of work as `units` of a stage.

    Work that starts again, as after running out of memory, is not counted twice.
    """

    def __init__(self, step: Step | None = None, units: int = 0) -> None:
        self._step, self._units, self._done = step or SilentStep(), units, 0

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]:
        """Return a context manager for the whole work in `total` units of its own."""
        return nullcontext(_Whole(self, total))

    def reach(self, share: float) -> None:
        """Report that a share of the work, from 0 to 1, is complete."""
        units = int(self._units * min(share, 1.0) + 1e-9)
        if units > self._done:
            self._step.advance(units - self._done)
            self._done = units

    def finish(self, **info: object) -> None:
        """Report that all of the work is complete, with its figures."""
        self._step.advance(self._units - self._done, **info)
        self._done = self._units


class _Whole:
    def __init__(self, portion: Portion, total: int) -> None:
        self._portion, self._total, self._done = portion, total, 0

    def advance(self, count: int = 1, **info: object) -> None:
        self._done += count
        self._portion.reach(self._done / max(1, self._total))
