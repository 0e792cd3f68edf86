"""Amount of work of a run, from its configuration and the shape of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.models.shape import ModelShape
from neuroal.pruners.base import Pruner
from neuroal.topups.base import TopUp

TOKENS = {"wikitext2": 3.0e5, "ptb": 1.1e5, "c4": 5.2e5, "c4_sample": 5.2e5, "builtin": 2.5e5}
"""Text → approximate number of its evaluation tokens."""
DOCUMENTS = {
    **{"rte": (277, 160), "winogrande": (1267, 60), "boolq": (3270, 280)},
    **{"hellaswag": (10042, 400), "arc_easy": (2376, 140), "arc_challenge": (1172, 160)},
    **{"openbookqa": (500, 100)},
}
"""Zero-shot task → number of its documents, and approximate tokens of a document's requests."""
OTHER_TASK = 2000, 200
"""The same for any other task of lm-eval, whose size is not known before it is loaded."""
FORWARD = "evaluate"
"""Stage whose rate is that of plain forward passes."""
PASS, STEP, FINGERPRINT = "pass", "step", "fingerprint"
"""Measured parts: a forward pass of long windows, one of a few tokens, hashing the weights."""
DOCUMENTS_OF_TASKS = "documents"
"""Measured part: the tokens of the documents of zero-shot tasks."""
BATCH = 4
"""Windows per forward pass of short windows, by which the number of passes is counted."""

Parts = Mapping[str, float]
"""Measured part → its amount in a stage."""


def work_of(config: RunConfig, shape: ModelShape) -> dict[str, float]:
    """Return stage → amount of work: mostly floating-point operations.

    A forward pass takes two operations per parameter and token. Stages that depend on methods end
    in their names. The amounts are proportional to seconds only within a stage.
    """
    run = _Work(config, shape)
    return {
        "load": shape.parameters,
        run.calibrate: 1.0 + len(_texts(config)),
        run.allocate: run.searched + run.updates * run.update + run.allocation,
        run.prune: run.pruned + run.update,
        FORWARD: 2 * shape.parameters * evaluated_tokens(config, shape),
    }


def parts_of(config: RunConfig, shape: ModelShape) -> dict[str, Parts]:
    """Return stage → amounts of the measured parts that it consists of (`grid.measure`).

    Unlike `work_of`, this separates what grows with the tokens from what does not.
    """
    run, parameters = _Work(config, shape), shape.parameters
    documents = {name: _documents(config, name) for name in _harness_tasks(config)}
    windows = sum(_windows(config, name, shape) for name in _texts(config))
    text = 2 * parameters * windows * run.task_seqlen
    pruning = f"pruning {run.methods}"
    if run.update and run.updates:
        search = {PASS: run.searched, pruning: run.updates * parameters}
    else:
        search = {run.search: run.searched + run.allocation}
    return {
        "load": {"load": parameters},
        run.calibrate: {run.calibrate: 1.0 + len(_texts(config))},
        run.allocate: {name: amount for name, amount in search.items() if amount},
        run.prune: {pruning: parameters, PASS: run.pruned},
        FORWARD: {
            **{f"task {name}": 1.0 for name in documents},
            PASS: text,
            STEP: windows / BATCH,
            DOCUMENTS_OF_TASKS: float(sum(documents.values())),
        },
    }


@dataclass(frozen=True)
class _Work:
    """Names of the stages of a run, and amounts of their work."""

    config: RunConfig
    shape: ModelShape

    @cached_property
    def pruner(self) -> Pruner:
        pruner: Pruner = build("pruner", self.config.pruner)
        return pruner

    @cached_property
    def topup(self) -> TopUp:
        topup: TopUp = build("topup", self.config.topup)
        return topup

    @property
    def methods(self) -> str:
        """Names of the pruner and of the refinement, if there is one."""
        refiner = build("refine", self.config.refine)
        return self.pruner.name if refiner is None else f"{self.pruner.name} {refiner.name}"

    @property
    def calibrate(self) -> str:
        return f"calibrate {self.config.calibration.name}"

    @property
    def prune(self) -> str:
        return f"prune {self.methods}"

    @property
    def allocate(self) -> str:
        prunes = self.updates * self.update
        return f"allocate {self.topup.name}" + (f" {self.pruner.name}" if prunes else "")

    @property
    def search(self) -> str:
        """Name of the measured part of the search."""
        return self.allocate.replace("allocate", "search")

    @property
    def task_seqlen(self) -> int:
        return self.config.task.seqlen or min(2048, self.shape.context)

    @property
    def forward(self) -> float:
        """Operations of a forward pass over one window."""
        seqlen = self.config.calibration.seqlen or min(2048, self.shape.context)
        return 2 * self.shape.parameters * seqlen

    @property
    def update(self) -> float:
        """Operations of the pruner besides forward passes, in the whole model."""
        return self.shape.parameters * self.pruner.operations_per_weight(float(self.shape.hidden))

    @property
    def updates(self) -> int:
        """Number of times that the search prunes the model."""
        return self.topup.search_prunings(self.pruner)

    @property
    def searched(self) -> float:
        """Operations of the forward passes of the search."""
        windows = search_windows(self.config)
        return self.topup.search_passes(windows) * windows * self.forward

    @property
    def allocation(self) -> float:
        """Operations of the top-up besides forward passes."""
        return self.shape.parameters * self.topup.operations_per_weight(float(self.shape.hidden))

    @property
    def pruned(self) -> float:
        """Operations of the forward passes of pruning."""
        return 2 * self.config.calibration.windows * self.forward


def _texts(config: RunConfig) -> list[str]:
    return [name for name in config.task.names if name in TOKENS]


def _harness_tasks(config: RunConfig) -> list[str]:
    return [name for name in config.task.names if name not in TOKENS]


def _windows(config: RunConfig, name: str, shape: ModelShape) -> float:
    """Return the number of windows of a text that are evaluated."""
    windows = TOKENS[name] / (config.task.seqlen or min(2048, shape.context))
    return min(windows, config.task.limit) if config.task.limit else windows


def _documents(config: RunConfig, name: str) -> float:
    """Return the approximate number of tokens of the documents of a task that are evaluated."""
    documents, _ = DOCUMENTS.get(name, OTHER_TASK)
    return document_tokens(name) * min(documents, config.task.limit or documents)


def document_tokens(name: str) -> float:
    """Return the approximate number of tokens of the requests of a document of a task."""
    return float(DOCUMENTS.get(name, OTHER_TASK)[1])


def evaluated_tokens(
    config: RunConfig, shape: ModelShape, metrics: Mapping[str, Any] | None = None
) -> float:
    """Return the number of tokens of all tasks; exact for those with results in `metrics`."""
    total, seqlen = 0.0, config.task.seqlen or min(2048, shape.context)
    for task in config.task.names:
        figures = (metrics or {}).get(task, {}).get("dense") or {}
        limit = config.task.limit
        if "windows" in figures:
            total += float(seqlen * figures["windows"])
        elif task in TOKENS:
            total += min(TOKENS[task], float(seqlen * limit) if limit else TOKENS[task])
        else:
            documents, tokens = DOCUMENTS.get(task, OTHER_TASK)
            total += tokens * min(documents, figures.get("documents") or limit or documents)
    return total
