"""Tracker for Weights & Biases. No other module imports wandb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from neuroal.config.naming import tags_of
from neuroal.config.schema import LONGEST_TAG
from neuroal.errors import first_line
from neuroal.tracking.base import Tracker
from neuroal.tracking.contents import RESULTS, figures, results, run_name, settings

if TYPE_CHECKING:
    from neuroal.config.schema import RunConfig
    from neuroal.records.schema import Record


JOB_TYPE = "prune"
"""Type of the W&B runs, by which they can be told from training runs of the same project."""


class WandbTracker(Tracker):
    """Tracks each run identity as one W&B run; a resumed run continues it.

    If the server cannot be reached within ``logger.timeout`` seconds, the run is stored on disk as
    with ``logger.mode=offline``, and ``wandb sync`` uploads it later.
    """

    name = "wandb"

    def __init__(self, config: RunConfig, identity: str) -> None:
        super().__init__(config, identity)
        self._run: Any = None
        self._axes: set[str] = set()

    def _log(self, values: Mapping[str, float], x_axis: str) -> None:
        if x_axis not in self._axes:
            stage = x_axis.rpartition("/")[0]
            self._run.define_metric(f"{stage}/*", step_metric=x_axis)
            self._axes.add(x_axis)
        self._run.log(dict(values))

    def _record(self, record: Record, path: Path) -> None:
        self._run.summary.update(dict(figures(record)))
        rows = [list(row) for row in results(record)]
        self._run.log(
            {
                "results": wandb.Table(columns=list(RESULTS), data=rows),
                "density_by_block": _line(record.densities(), "block", "density"),
            }
        )
        artifact = wandb.Artifact(f"record-{record.identity}", type="record")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def _close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))

    def _open(self) -> None:
        limit = self.config.logger.timeout
        wandb.setup(wandb.Settings(silent=True, login_timeout=limit))  # it may prompt for a key
        if self.config.logger.mode == "online":
            try:
                self._run = self._init("online")
                return
            except wandb.Error as error:
                self.warn(f"{first_line(error)}; stored in {self._folder()} for `wandb sync`")
                wandb.teardown()  # else its service keeps the run's id reserved
        self._run = self._init("offline")

    def _folder(self) -> Path:
        return Path(self.config.out) / "wandb"

    def _init(self, mode: Any) -> Any:
        logger = self.config.logger
        self._folder().mkdir(parents=True, exist_ok=True)
        return wandb.init(
            id=self.identity,
            resume="allow",
            reinit="create_new",
            mode=mode,
            project=logger.project,
            entity=logger.entity,
            group=logger.group,
            job_type=JOB_TYPE,
            name=run_name(self.config),
            tags=[tag[:LONGEST_TAG] for tag in (*tags_of(self.config), *logger.tags)],
            config=settings(self.config),
            dir=self.config.out,
            settings=wandb.Settings(
                silent=True,
                console="off",  # leave the terminal's output alone
                init_timeout=logger.timeout,
                finish_timeout=logger.timeout,
                x_disable_stats=True,
                x_save_requirements=False,  # the record has the versions
                disable_git=True,  # the record has the commit
                disable_code=True,
            ),
        )


def _line(values: Mapping[int, float], x: str, y: str) -> Any:
    table = wandb.Table(columns=[x, y], data=[list(pair) for pair in values.items()])
    return wandb.plot.line(table, x, y, title=f"{y} by {x}")
