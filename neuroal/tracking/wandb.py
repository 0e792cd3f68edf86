"""Tracker for Weights & Biases. No other module imports wandb."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from neuroal.config.naming import tags_of
from neuroal.config.schema import LONGEST_NAME, LONGEST_TAG
from neuroal.errors import first_line

if TYPE_CHECKING:
    from neuroal.config.schema import RunConfig
    from neuroal.records.schema import Record


class WandbTracker:
    """Tracks each run identity as one W&B run; a resumed run continues it.

    The W&B run starts with the first stage, so an invalid run or a run with nothing left to do
    creates none. After an error of W&B, the tracker prints one warning on stderr and stops
    tracking; the record does not depend on it. If the server cannot be reached within
    ``logger.timeout`` seconds, the run is stored on disk as with ``logger.mode=offline``, and
    ``wandb sync`` uploads it later.
    """

    def __init__(self, config: RunConfig, identity: str) -> None:
        self._config, self._identity = config, identity
        self._run: Any = None
        self._dead = False
        self._axes: set[str] = set()

    def begin(self) -> None:
        """Start tracking; called at every stage."""
        self._contained(lambda: None)

    def log(self, values: dict[str, float], x_axis: str) -> None:
        """Log the figures of one step of a stage; `x_axis` names the one that is the x axis."""

        def send() -> None:
            if x_axis not in self._axes:
                stage = x_axis.rpartition("/")[0]
                self._run.define_metric(f"{stage}/*", step_metric=x_axis)
                self._axes.add(x_axis)
            self._run.log(values)

        self._contained(send)

    def record(self, record: Record, path: Path) -> None:
        """Report the record of the finished run, stored at `path`."""

        def send() -> None:
            self._run.summary.update(dict(_figures(record)))
            self._run.log({"density_by_block": _line(record.densities(), "block", "density")})
            artifact = wandb.Artifact(f"record-{record.identity}", type="record")
            artifact.add_file(str(path))
            self._run.log_artifact(artifact)

        if self._run is not None:
            self._contained(send)

    def close(self, failed: bool) -> None:
        """End tracking; `failed`: whether the run raised an error."""
        if self._run is not None:
            self._contained(lambda: self._run.finish(exit_code=int(failed)))

    def _contained(self, action: Callable[[], None]) -> None:
        """Do `action` on an open run; warn about an error once and stop tracking."""
        if self._dead:
            return
        try:
            if self._run is None:
                self._run = self._open()
            action()
        except Exception as error:  # W&B raises many types; none may end the run
            self._dead = True
            _warn(f"{first_line(error)}; the record does not depend on it")

    def _open(self) -> Any:
        limit = self._config.logger.timeout
        wandb.setup(wandb.Settings(silent=True, login_timeout=limit))  # it may prompt for a key
        if self._config.logger.mode == "online":
            try:
                return self._init("online")
            except wandb.Error as error:
                _warn(f"{first_line(error)}; stored in {self._folder()} for `wandb sync`")
                wandb.teardown()  # else its service keeps the run's id reserved
        return self._init("offline")

    def _folder(self) -> Path:
        return Path(self._config.out) / "wandb"

    def _init(self, mode: Any) -> Any:
        logger = self._config.logger
        self._folder().mkdir(parents=True, exist_ok=True)
        return wandb.init(
            id=self._identity,
            resume="allow",
            reinit="create_new",
            mode=mode,
            project=logger.project,
            entity=logger.entity,
            group=logger.group,
            name=" ".join(tags_of(self._config))[:LONGEST_NAME],
            tags=[tag[:LONGEST_TAG] for tag in (*tags_of(self._config), *logger.tags)],
            config=dataclasses.asdict(self._config),
            dir=self._config.out,
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


def _figures(record: Record) -> Iterator[tuple[str, float]]:
    """Yield ``TASK/dense/FIGURE``, ``seconds/STAGE``, ``sparsity`` … of a record."""
    yield "sparsity", record.sparsity["overall"]
    for group in ("seconds", "peak_bytes"):
        for stage, value in record.costs.get(group, {}).items():
            yield f"{group}/{stage}", value
    for task, measured in record.metrics.items():
        for model in ("dense", "pruned"):
            for figure, value in (measured.get(model) or {}).items():
                if isinstance(value, int | float):
                    yield f"{task}/{model}/{figure}", value
    for name, value in record.plan.get("report", {}).items():
        if isinstance(value, int | float):
            yield f"plan/{name}", value


def _line(values: Mapping[int, float], x: str, y: str) -> Any:
    table = wandb.Table(columns=[x, y], data=[list(pair) for pair in values.items()])
    return wandb.plot.line(table, x, y, title=f"{y} by {x}")


def _warn(text: str) -> None:
    print(f"neuroal: logger=wandb: {text}", file=sys.stderr)
