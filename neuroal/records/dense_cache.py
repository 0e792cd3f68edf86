"""Evaluate a model, caching results that many runs share (the dense baseline)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
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


class Abandoned(Exception):
    """The process that was computing a figure has ended without it."""


class DenseFigures:
    """Figures of an unpruned model on some tasks, which all processes of one ``out`` share.

    Processes that start together share the work: each takes tasks that no other process holds. If a
    process dies, another one takes over its task. Create this before the weights are changed: they
    are part of the cache key.

    Args:
        loaded: the model.
        tasks: tasks to evaluate.
        out: folder of records, whose folder `FOLDER` holds one file for each `CacheEntry`.

    Attributes:
        figures: task → its figures, as far as they are present.
    """

    def __init__(self, loaded: LoadedModel, tasks: Sequence[Task], out: Path) -> None:
        weights = fingerprint(loaded.model)
        self._loaded, self._tasks = loaded, tasks
        self._entries = {t.name: CacheEntry.of(t, weights, loaded, out / FOLDER) for t in tasks}
        self.figures: dict[str, dict[str, Any]] = {}

    def evaluate(
        self, batch: int | None, progress: Progress, stage: str, *, wait: bool = False
    ) -> None:
        """Compute the figures that are not cached and that no other process is computing.

        Before computing any, log a warning if the model's perplexity depends on BOS.

        Args:
            batch: windows in one forward pass, or requests of 1024 tokens; None: chosen by free
                memory.
            progress: receives progress updates.
            stage: name of the stage in `progress`.
            wait: whether to wait for the figures that other processes are computing.
        """
        due = [task for task in self._tasks if not self._entries[task.name].path.exists()]
        if warning := bos_warning(self._loaded, due):
            log.warning("%s", warning)
        with progress.stage(stage, *counted(self._tasks)) as step:
            portions = {task.name: Portion(step, task.units) for task in self._tasks}
            while pending := self._pending():
                filled = [self._fill(task, batch, portions[task.name]) for task in pending]
                if not wait:
                    break
                if not any(filled):
                    time.sleep(POLL)
            for task in self._pending():
                portions[task.name].finish()

    def _pending(self) -> list[Task]:
        return [task for task in self._tasks if task.name not in self.figures]

    def _fill(self, task: Task, batch: int | None, portion: Portion) -> bool:
        """Compute or read the figures of a task; return False while another process does."""
        figures = self._entries[task.name].fill(self._loaded, task, batch, portion)
        if figures is None:
            return False
        self._take(task, figures)
        portion.finish(**{task.name: figures[task.headline]})
        return True

    def _take(self, task: Task, figures: dict[str, Any]) -> None:
        self.figures[task.name] = figures
        warn_if_chance(task.name, figures, self._loaded.vocabulary)

    def beside(
        self, evaluations: Iterable[tuple[Task, dict[str, Any]]]
    ) -> Iterator[tuple[Task, dict[str, Any], dict[str, Any]]]:
        """Yield each task with its dense figures and those of `evaluations`, once both exist.

        After the last evaluation, wait for the figures that other processes are computing.

        Raises:
            Abandoned: such a process has ended without them.
        """
        due: list[tuple[Task, dict[str, Any]]] = []
        for task, figures in evaluations:
            due.append((task, figures))
            yield from self._complete(due)
        if due:
            names = ", ".join(task.name for task, _ in due)
            log.info("waits for the dense model's %s, which another process computes", names)
        while due:
            for task, _ in due:
                self._entries[task.name].require_holder(task)
            yield from self._complete(due)
            if due:
                time.sleep(POLL)

    def _complete(
        self, due: list[tuple[Task, dict[str, Any]]]
    ) -> Iterator[tuple[Task, dict[str, Any], dict[str, Any]]]:
        """Yield the tasks of `due` whose dense figures exist, and remove them from it."""
        for pair in list(due):
            task, figures = pair
            if task.name not in self.figures:
                dense = self._entries[task.name].present(task)
                if dense is not None:
                    self._take(task, dense)
            if task.name in self.figures:
                due.remove(pair)
                yield task, self.figures[task.name], figures


def evaluate_cached(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    batch: int | None,
    out: Path,
    progress: Progress,
    stage: str,
) -> dict[str, dict[str, Any]]:
    """Return the figures of each task, also those that other processes compute (`DenseFigures`)."""
    dense = DenseFigures(loaded, tasks, out)
    dense.evaluate(batch, progress, stage, wait=True)
    return {task.name: dense.figures[task.name] for task in tasks}


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

    def present(self, task: Task) -> dict[str, Any] | None:
        """Return the cached figures of `task`; None as well if it lacks samples that it logs."""
        lacks_samples = getattr(task, "log_samples", False) and not self.samples.exists()
        return None if lacks_samples else self.read()

    def require_holder(self, task: Task) -> None:
        """Raise `Abandoned` if neither the figures of `task` exist nor a process holds it."""
        with leased(self.path.with_suffix(".lock")) as mine:
            if mine and self.present(task) is None:
                raise Abandoned(
                    f"the process that evaluated the dense model on {task.name} has ended"
                )

    def fill(
        self, loaded: LoadedModel, task: Task, batch: int | None, portion: Portion
    ) -> dict[str, Any] | None:
        """Return the figures, computed if needed; None while another process computes them."""
        figures = self.present(task)
        if figures is not None:
            return figures
        with leased(self.path.with_suffix(".lock")) as mine:
            if not mine:
                return None
            figures = self.present(task)  # another process may have finished by now
            if figures is None:
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
