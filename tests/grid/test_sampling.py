"""A long stage is timed by its first steps."""

from __future__ import annotations

import time

import pytest

from neuroal.grid.sampling import sampled
from neuroal.tracking.progress import Progress


def steps(progress: Progress, total: int, seconds: float, done: list[int]) -> None:
    """Do a stage of `total` steps, the first of which takes longer."""
    with progress.stage("prune", total, "block") as step:
        for number in range(total):
            time.sleep(seconds * (5 if number == 0 else 1))
            done.append(number)
            step.advance(1)


def test_a_short_stage_is_done_in_full() -> None:
    done: list[int] = []
    seconds = sampled(lambda progress: steps(progress, 5, 0.01, done))
    assert len(done) == 5
    assert 0.09 <= seconds < 1


def test_a_long_stage_is_stopped_and_extrapolated() -> None:
    done: list[int] = []
    seconds = sampled(lambda progress: steps(progress, 1000, 0.01, done), longest=1.0)
    assert done == [0, 1, 2]
    assert 10 <= seconds < 30


def test_an_error_of_the_work_is_raised() -> None:
    def fail(progress: Progress) -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        sampled(fail)
