"""Measure a model on tasks; what many runs need alike (the dense model) once for all of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuroal.errors import UserError
from neuroal.evaluation.tasks import Task
from neuroal.models.fingerprint import fingerprint
from neuroal.models.load import LoadedModel
from neuroal.records.files import write_json
from neuroal.records.identity import environment
from neuroal.records.lease import leased
from neuroal.tracking import Progress, Step

POLL = 0.5
"""Seconds between two looks at what other processes are measuring."""
SHELF_VERSION = 1
MEASURED = "measured"
"""Folder under ``out`` where the figures of models as they are, not yet pruned, are kept."""


def measure(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    batch: int | None,
    progress: Progress,
    stage: str,
) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Each task with the figures of the model, as soon as it is measured."""
    with progress.stage(stage, len(tasks), "task") as step:
        for task in tasks:
            figures = task.measure(loaded.model, loaded.tokenizer, batch)
            _advance(step, task, figures)
            yield task, figures


def measure_once(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    batch: int | None,
    shelf: Path,
    progress: Progress,
    stage: str,
) -> dict[str, dict[str, Any]]:
    """Figures by task; what `shelf` holds already is read, and the rest is put there.

    Processes that start together share the work: each takes tasks that no other is at, and waits
    for what the others measure. If one dies, another takes its task over.

    Args:
        loaded: the model, as it is now: its weights decide what is found.
        tasks: what to measure.
        batch: windows or requests in one forward pass; None: by memory.
        shelf: folder of results, one JSON for each (weights, task, data, limit, seqlen, versions).
        progress: told of every task.
        stage: its name there.
    """
    weights = fingerprint(loaded.model)
    places = {task.name: Place.of(task, weights, loaded, shelf) for task in tasks}
    pending, results = list(tasks), {}
    with progress.stage(stage, len(tasks), "task") as step:
        while pending:
            for task in pending:
                found = places[task.name].fill(loaded, task, batch)
                if found is not None:
                    results[task.name] = found
                    _advance(step, task, found)
            waiting = [task for task in pending if task.name not in results]
            if len(waiting) == len(pending):
                time.sleep(POLL)
            pending = waiting
    return {task.name: results[task.name] for task in tasks}


def _advance(step: Step, task: Task, figures: dict[str, Any]) -> None:
    step.advance(1, **{task.name: figures[task.headline]})


@dataclass(frozen=True)
class Place:
    """Where one result is kept: its file, and what decides it."""

    path: Path
    key: dict[str, Any]

    @classmethod
    def of(cls, task: Task, weights: str, loaded: LoadedModel, shelf: Path) -> Place:
        packages = ["torch", "transformers"]
        packages += ["lm_eval"] if task.terms["kind"] == "zero_shot" else []
        key = {
            "version": SHELF_VERSION,
            "weights": weights,
            "device": loaded.model.device.type,
            "float32_products": torch.get_float32_matmul_precision(),
            "task": task.name,
            **task.terms,
            "data": task.description["fingerprint"],
            "packages": {name: version(name) for name in packages},
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cls(shelf / f"{task.name}-{digest}.json", key)

    def read(self) -> dict[str, Any] | None:
        """The figures kept here, if there are any."""
        try:
            kept = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); delete it") from error
        figures: dict[str, Any] = kept["figures"]
        return figures

    def fill(self, loaded: LoadedModel, task: Task, batch: int | None) -> dict[str, Any] | None:
        """Read the figures or measure and keep them; None while another process is at it."""
        found = self.read()
        if found is not None:
            return found
        with leased(self.path.with_suffix(".lock")) as mine:
            if not mine:
                return None
            found = self.read()  # finished between our look and the lock
            if found is None:
                found = task.measure(loaded.model, loaded.tokenizer, batch)
                content = {
                    "model": loaded.name,
                    "key": self.key,
                    "data": task.description,
                    "environment": environment(loaded.model.device),
                    "figures": found,
                }
                write_json(self.path, content)
            return found
