"""Report a run to a tracking service, in addition to its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neuroal.tracking.progress import Progress, Step

if TYPE_CHECKING:
    from neuroal.config.schema import RunConfig
    from neuroal.tracking.wandb import WandbTracker


@contextmanager
def tracker_for(config: RunConfig, identity: str) -> Iterator[WandbTracker | None]:
    """Yield the tracker that ``logger=`` names, if any, and close it at the end."""
    if config.logger.name == "none":
        yield None
        return
    from neuroal.tracking.wandb import WandbTracker

    tracker = WandbTracker(config, identity)
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


class TrackedProgress:
    """Shows progress on `shown`, and passes the figures of each step to a tracker.

    Figures are named ``STAGE/FIGURE``. Their x axis is ``STAGE/done``, the units completed so far.
    """

    def __init__(self, shown: Progress, tracker: WandbTracker) -> None:
        self._shown, self._tracker = shown, tracker

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        with self._shown.stage(name, total, unit) as step:
            yield _TrackedStep(step, name, self._tracker)


class _TrackedStep:
    def __init__(self, shown: Step, stage: str, tracker: WandbTracker) -> None:
        self._shown, self._stage, self._tracker, self._done = shown, stage, tracker, 0

    def advance(self, count: int = 1, **info: object) -> None:
        self._tracker.begin()  # once the model is loaded: an invalid run is not tracked
        self._shown.advance(count, **info)
        self._done += count
        figures = {
            f"{self._stage}/{key}": float(value)
            for key, value in info.items()
            if isinstance(value, int | float)
        }
        axis = f"{self._stage}/done"
        if figures:
            self._tracker.log({**figures, axis: float(self._done)}, axis)
