"""Where a run is reported beside its record: one small interface, and who implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuroal.errors import UserError
from neuroal.tracking.progress import Progress, Step

if TYPE_CHECKING:
    from neuroal.config import RunConfig
    from neuroal.records.schema import Record


class Tracker(Protocol):
    """Told of a run. Nothing that goes wrong in here may end the run."""

    def begin(self) -> None:
        """Work begins; called at every stage. A run that finds all done never calls it."""

    def log(self, values: dict[str, float], x_axis: str) -> None:
        """Figures of one step of a stage; `x_axis` is the one of them to plot the rest over."""

    def record(self, record: Record, path: Path) -> None:
        """The run is done, and its record stands at `path`."""

    def close(self, failed: bool) -> None:
        """Nothing more will come."""


class NoTracker:
    """The record alone."""

    def begin(self) -> None:
        return

    def log(self, values: dict[str, float], x_axis: str) -> None:
        return

    def record(self, record: Record, path: Path) -> None:
        return

    def close(self, failed: bool) -> None:
        return


@contextmanager
def tracker_for(config: RunConfig, identity: str) -> Iterator[Tracker]:
    """The tracker that ``logger=`` names, closed at the end.

    Raises:
        UserError: what it needs is not installed.
    """
    if config.logger.name == "none":
        yield NoTracker()
        return
    if find_spec("wandb") is None:
        raise UserError("logger=wandb: wandb is not installed; pip install wandb, or logger=none")
    from neuroal.tracking.wandb import WandbTracker

    tracker = WandbTracker(config, identity)
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


class TrackedProgress:
    """Shows progress as `shown` does, and hands each step's figures to a tracker.

    A stage's figures are named ``STAGE/FIGURE``, over ``STAGE/done``, the units done so far.
    """

    def __init__(self, shown: Progress, tracker: Tracker) -> None:
        self._shown, self._tracker = shown, tracker

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        self._tracker.begin()
        with self._shown.stage(name, total, unit) as step:
            yield _TrackedStep(step, name, self._tracker.log)


class _TrackedStep:
    def __init__(
        self, shown: Step, stage: str, log: Callable[[dict[str, float], str], None]
    ) -> None:
        self._shown, self._stage, self._log, self._done = shown, stage, log, 0

    def advance(self, count: int = 1, **info: object) -> None:
        self._shown.advance(count, **info)
        self._done += count
        figures = {
            f"{self._stage}/{key}": float(value)
            for key, value in info.items()
            if isinstance(value, int | float)
        }
        axis = f"{self._stage}/done"
        if figures:
            self._log({**figures, axis: float(self._done)}, axis)
