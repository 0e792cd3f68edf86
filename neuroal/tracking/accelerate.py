"""Trackers for TensorBoard and MLflow, through those of accelerate."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker

from neuroal.config.naming import tags_of
from neuroal.records.schema import Record
from neuroal.tracking.base import Tracker
from neuroal.tracking.contents import figures, flat, run_name, settings


class AccelerateTracker(Tracker):
    """Passes settings and figures to a tracker of accelerate."""

    def _open(self) -> None:
        PartialState(cpu=True)  # accelerate's trackers need one; this process is not distributed
        self._service, is_new = self._service_of_run()
        self._service.start()
        if is_new:
            values = {key: _plain(v) for key, v in flat(settings(self.config)) if v is not None}
            self._service.store_init_configuration(values)

    @abstractmethod
    def _service_of_run(self) -> tuple[GeneralTracker, bool]:
        """Return the tracker of accelerate, and whether the run is new to it."""

    def _log(self, values: Mapping[str, float], x_axis: str) -> None:
        done = int(values[f"{x_axis.rpartition('/')[0]}/done"])
        self._service.log(dict(values), step=done)

    def _record(self, record: Record, path: Path) -> None:
        self._service.log(dict(figures(record)), step=0)

    def _close(self, failed: bool) -> None:
        self._service.finish()


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)


class TensorBoard(AccelerateTracker):
    """Writes event files to OUT/tensorboard/NAME; a resumed run appends to its folder."""

    name = package = "tensorboard"

    def _service_of_run(self) -> tuple[GeneralTracker, bool]:
        folder = Path(self.config.out) / "tensorboard"
        short = re.sub(r"[^A-Za-z0-9.]+", "-", run_name(self.config))
        name = f"{short}-{self.identity}"
        is_new = not (folder / name).exists()
        return TensorBoardTracker(name, str(folder)), is_new


class MLflow(AccelerateTracker):
    """Reports to MLFLOW_TRACKING_URI, or else to OUT/mlflow.db; a resumed run continues its own."""

    name = package = "mlflow"

    def _service_of_run(self) -> tuple[GeneralTracker, bool]:
        import mlflow  # an extra

        out = Path(self.config.out).absolute()
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri(f"sqlite:///{out / 'mlflow.db'}")
        condition = f"tags.identity = '{self.identity}'"
        earlier = mlflow.search_runs(
            filter_string=condition, search_all_experiments=True, output_format="list"
        )
        group, names = self.config.logger.group, ("model", "pruner", "topup", "sparsity")
        tags = {"identity": self.identity, **dict(zip(names, tags_of(self.config), strict=True))}
        service = MLflowTracker(
            self.config.logger.project,
            logging_dir=(out / "mlflow").as_uri(),
            run_id=earlier[0].info.run_id if earlier else None,
            run_name=run_name(self.config),
            tags=tags | ({"group": group} if group else {}),
        )
        return service, not earlier

    def _record(self, record: Record, path: Path) -> None:
        super()._record(record, path)
        self._service.log_artifact(str(path))
