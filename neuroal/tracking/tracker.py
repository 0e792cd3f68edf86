"""Report a run to a tracking service, in addition to its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from neuroal.errors import UserError
from neuroal.tracking.progress import Progress, Step

if TYPE_CHECKING:
    from neuroal.config.schema import RunConfig
    from neuroal.tracking.base import Tracker

CANDIDATE = "candidate"
"""Figure of a search that is the x axis of the others: the λ of a candidate."""


@contextmanager
def tracker_for(config: RunConfig, identity: str) -> Iterator[Tracker | None]:
    """Yield the tracker that ``logger=`` names, if any, and close it at the end.

    Raises:
        UserError: the package of the tracker is not installed.
    """
    if config.logger.name == "none":
        yield None
        return
    tracker = _class_of(config.logger.name)(config, identity)
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


def _class_of(name: str) -> type[Tracker]:
    """Return the tracker called `name`; services are imported only if they are used."""
    if name == "wandb":
        from neuroal.tracking.wandb import WandbTracker

        return WandbTracker
    if name == "csv":
        from neuroal.tracking.csv import CsvTracker

        return CsvTracker
    from neuroal.tracking.accelerate import MLflow, TensorBoard

    tracker = TensorBoard if name == "tensorboard" else MLflow
    if find_spec(tracker.package) is None:
        raise UserError(
            f"logger={name}: the package {tracker.package} is missing; "
            f"pip install 'neuroal[{name}]'"
        )
    return tracker


class TrackedProgress:
    """Shows progress on `shown`, and passes the figures of each step to a tracker.

    Figures are named ``STAGE/FIGURE``. Their x axis is ``STAGE/candidate`` if the step has one, and
    otherwise ``STAGE/done``, the units completed so far.
    """

    def __init__(self, shown: Progress, tracker: Tracker) -> None:
        self._shown, self._tracker = shown, tracker

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        with self._shown.stage(name, total, unit) as step:
            yield _TrackedStep(step, name, self._tracker)


class _TrackedStep:
    def __init__(self, shown: Step, stage: str, tracker: Tracker) -> None:
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
        axis = f"{self._stage}/{CANDIDATE if CANDIDATE in info else 'done'}"
        if figures:
            self._tracker.log({f"{self._stage}/done": float(self._done), **figures}, axis)
