"""Time the first steps of a long stage, and extrapolate to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from neuroal.tracking.progress import Progress, Step

LONGEST = 30.0
"""Seconds from which a stage is not timed in full."""
ENOUGH = 3
"""Steps of such a stage after which it is stopped; the first may take longer than the others."""


class _EnoughSteps(Exception):
    """The stage is stopped; the argument is its extrapolated time in seconds."""


class _Clock:
    """Receives the progress of a piece of work, and stops it in a stage that takes too long."""

    def __init__(self, longest: float) -> None:
        self._begin, self._longest = time.perf_counter(), longest

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        """Return a stage of `total` steps."""
        yield _Steps(self, total)

    def extrapolate(self, times: list[float], total: int) -> None:
        """Stop the work if the rest of a stage, whose steps ended at `times`, takes too long."""
        if ENOUGH <= len(times) < total:
            step = (times[-1] - times[0]) / (len(times) - 1)
            seconds = times[-1] - self._begin + step * (total - len(times))
            if seconds > self._longest:
                raise _EnoughSteps(seconds)


class _Steps:
    def __init__(self, clock: _Clock, total: int) -> None:
        self._clock, self._total, self._times = clock, total, list[float]()

    def advance(self, count: int = 1, **info: object) -> None:
        self._times += [time.perf_counter()] * count
        self._clock.extrapolate(self._times, self._total)


def sampled(work: Callable[[Progress], object], longest: float = LONGEST) -> float:
    """Return the seconds of `work`, which reports its steps to the progress that it receives.

    Work that would take more than `longest` seconds is stopped in the stage that takes long, whose
    time is extrapolated from its first steps.
    """
    begin = time.perf_counter()
    try:
        work(_Clock(longest))
    except _EnoughSteps as enough:
        (seconds,) = enough.args
        return float(seconds)
    return time.perf_counter() - begin
