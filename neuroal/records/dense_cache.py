"""Evaluate a model, caching results that many runs share (the dense baseline)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuroal.evaluation.bos_warning import bos_warning
from neuroal.evaluation.samples import take_samples
from neuroal.evaluation.sanity import require_finite, warn_if_chance
from neuroal.evaluation.tasks import Task, counted
from neuroal.files.lock import leased
from neuroal.files.sealed import read_sealed, write_sealed
from neuroal.models.fingerprint import fingerprint
from neuroal.models.load import LoadedModel
from neuroal.records.identity import environment
from neuroal.tracking.progress import Portion, Progress

log = logging.getLogger(__name__)
POLL = 0.5
"""Seconds between two checks for results of other processes."""
CACHE_VERSION = 2
FOLDER = "measured"
"""Folder under ``out`` that caches the results of unpruned models."""


def evaluate_cached(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    batch: int | None,
    out: Path,
    progress: Progress,
    stage: str,
) -> dict[str, dict[str, Any]]:
    """Return the figures of each task, and compute only those that are not cached.

    Before computing any, log a warning if the model's perplexity depends on BOS.

    Processes that start together share the work: each takes tasks that no other process holds, and
    waits for the results of the others. If a process dies, another one takes over its task.

    Args:
        loaded: the model; its current weights are part of the cache key.
        tasks: tasks to evaluate.
        batch: windows or requests in one forward pass; None: chosen by free memory.
        out: folder of records, whose folder `FOLDER` holds one file for each `CacheEntry`.
        progress: receives progress updates.
        stage: name of the stage in `progress`.
    """
    weights = fingerprint(loaded.model)
    entries = {task.name: CacheEntry.of(task, weights, loaded, out / FOLDER) for task in tasks}
    due = [task for task in tasks if not entries[task.name].path.exists()]
    if warning := bos_warning(loaded, due):
        log.warning("%s", warning)
    pending, results = list(tasks), {}
    with progress.stage(stage, *counted(tasks)) as step:
        portions = {task.name: Portion(step, task.units) for task in tasks}
        while pending:
            for task in pending:
                figures = entries[task.name].fill(loaded, task, batch, portions[task.name])
                if figures is not None:
                    results[task.name] = figures
                    warn_if_chance(task.name, figures, loaded.vocabulary)
                    portions[task.name].finish(**{task.name: figures[task.headline]})
            waiting = [task for task in pending if task.name not in results]
            if len(waiting) == len(pending):
                time.sleep(POLL)
            pending = waiting
    return {task.name: results[task.name] for task in tasks}


@dataclass(frozen=True)
class CacheEntry:
    """The JSON file of one result, and the key: everything that determines the result."""

    path: Path
    key: dict[str, Any]

    @classmethod
    def of(cls, task: Task, weights: str, loaded: LoadedModel, folder: Path) -> CacheEntry:
        """Return the entry of `task` for a model whose `fingerprint` is `weights`."""
        packages = ["torch", "transformers"]
        packages += ["lm_eval"] if task.terms["kind"] != "perplexity" else []
        key = {
            "version": CACHE_VERSION,
            "weights": weights,
            "device": loaded.model.device.type,
            "float32_products": torch.get_float32_matmul_precision(),
            "task": task.name,
            **task.terms,
            "data": task.description["fingerprint"],
            "packages": {name: version(name) for name in packages},
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cls(folder / f"{task.name}-{digest}.json", key)

    @property
    def samples(self) -> Path:
        """The file of the samples of a task of lm-eval."""
        return self.path.with_suffix(".samples.jsonl")

    def read(self) -> dict[str, Any] | None:
        """Return the cached figures; None if there are none, or if the file is damaged."""
        content = read_sealed(self.path)
        figures: dict[str, Any] | None = content["figures"] if content else None
        return figures

    def fill(
        self, loaded: LoadedModel, task: Task, batch: int | None, portion: Portion
    ) -> dict[str, Any] | None:
        """Return the figures, computed if needed; None while another process computes them."""
        figures = self.read()
        logs = getattr(task, "log_samples", False)
        if figures is not None and (self.samples.exists() or not logs):
            return figures
        with leased(self.path.with_suffix(".lock")) as mine:
            if not mine:
                return None
            figures = self.read()  # another process may have finished before we got the lock
            if figures is None or (logs and not self.samples.exists()):
                figures = task.evaluate(loaded.model, loaded.tokenizer, batch, portion)
                figures = take_samples(figures, self.samples)
                require_finite(task.name, figures)
                content = {
                    "model": loaded.name,
                    "key": self.key,
                    "data": task.description,
                    "environment": environment(loaded.model.device),
                    "figures": figures,
                }
                write_sealed(self.path, content)
            return figures
