"""Estimate the time and memory that the unfinished runs of a grid need."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from neuroal.config.instantiate import build
from neuroal.config.schema import ModelConfig, RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.execution.rates import CPU_RATE, GPU_RATE
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, Status
from neuroal.models.location import ZOO

PARAMETERS = {"microsoft/phi-2": 2.8e9}
"""Hub model → number of parameters, where the name does not contain it."""
SHAPE = 12 / 128
"""Number of parameters divided by the third power of the width, as in LLaMA."""
TOKENS_PER_TASK = 3e5
MEMORY_FACTOR = 1.5
"""Peak memory divided by the memory of the weights; the rest is activations and statistics."""

Cost = tuple[float, int]
"""Seconds and peak bytes."""


@dataclass(frozen=True)
class Estimate:
    """Time of one worker and peak memory of all unfinished runs.

    Attributes:
        cost: seconds and bytes; None: the size of a model is unknown.
        measured: number of runs that are estimated from finished runs of the same model.
        runs: number of unfinished runs.
    """

    cost: Cost | None
    measured: int
    runs: int


def estimate(runs: Sequence[PlannedRun], statuses: Sequence[Status], on_gpu: bool) -> Estimate:
    """Estimate the unfinished runs among `runs`.

    Uses finished runs of the same model and methods; else finished runs of the same model; else
    the size of the model.
    """
    finished = _finished_costs(runs, statuses)
    due = [p.config for p, s in zip(runs, statuses, strict=True) if s.state is not RunState.DONE]
    costs, measured = [], 0
    for config in due:
        similar = next((finished[key] for key in _keys(config) if key in finished), None)
        if similar:
            measured += 1
            costs.append((median(spent for spent, _ in similar), max(peak for _, peak in similar)))
        elif (parameters := parameters_of(config.model)) is not None:
            width = 2 if on_gpu else 4
            seconds = _seconds_by_size(config, parameters, on_gpu)
            costs.append((seconds, int(MEMORY_FACTOR * width * parameters)))
    total = None
    if costs and len(costs) == len(due):
        total = sum(spent for spent, _ in costs), max(peak for _, peak in costs)
    return Estimate(total, measured, len(due))


def _finished_costs(
    runs: Sequence[PlannedRun], statuses: Sequence[Status]
) -> dict[tuple[str, ...], list[Cost]]:
    """Return key (see `_keys`) → costs of every finished run."""
    costs: dict[tuple[str, ...], list[Cost]] = {}
    for planned, status in zip(runs, statuses, strict=True):
        if status.state is RunState.DONE and status.summary is not None:
            for key in _keys(planned.config):
                cost = (status.summary.seconds, status.summary.peak_bytes)
                costs.setdefault(key, []).append(cost)
    return costs


def _keys(config: RunConfig) -> Iterable[tuple[str, ...]]:
    """Yield keys of comparable runs, from the most similar to the least similar."""
    methods = (config.pruner, config.topup, config.refine)
    names = tuple(str((node or {}).get("_target_")) for node in methods)
    yield (config.model.path, *names)
    yield (config.model.path, *names[:2])
    yield (config.model.path,)


def _seconds_by_size(config: RunConfig, parameters: float, on_gpu: bool) -> float:
    """Return the seconds of all passes, at two operations per parameter and token, and prunings."""
    calibration = config.calibration
    pruner, topup = build("pruner", config.pruner), build("topup", config.topup)
    passes: float = topup.search_passes()
    prunings: int = 1 + topup.search_prunings(pruner)
    work: float = pruner.operations_per_weight(_width(config.model, parameters))
    windows = 2 * calibration.windows + passes * search_windows(config)
    tokens = (
        windows * (calibration.seqlen or _default_seqlen(config.model))
        + len(config.task.names) * TOKENS_PER_TASK
    )
    operations = parameters * (2 * tokens + prunings * work)
    return operations / (GPU_RATE if on_gpu else CPU_RATE)


def _default_seqlen(model: ModelConfig) -> int:
    """Return the tokens of a window if the configuration does not set them."""
    return min(2048, int(_settings(model).get("max_position_embeddings", 2048)))


def _width(model: ModelConfig, parameters: float) -> float:
    """Return the hidden size of a model, by its files or its number of `parameters`."""
    return float(_settings(model).get("hidden_size", (parameters / SHAPE) ** (1 / 3)))


def _settings(model: ModelConfig) -> dict[str, Any]:
    """Return the content of the model's ``config.json``; empty if it cannot be read."""
    try:
        settings = json.loads((_folder(model) / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _folder(model: ModelConfig) -> Path:
    return ZOO / model.path if model.source == "zoo" else Path(model.path)


def parameters_of(model: ModelConfig) -> float | None:
    """Return the number of parameters by the model's files or its name (``llama-7b``), or None."""
    folder = _folder(model)
    if folder.is_dir():
        files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
        # Most checkpoints store two bytes per parameter.
        return sum(file.stat().st_size for file in files) / 2
    if model.path in PARAMETERS:
        return PARAMETERS[model.path]
    match = re.search(r"(\d+(?:\.\d+)?)b\b", model.path.lower())
    return float(match[1]) * 1e9 if match else None
