"""What is left of a grid will take how long, and its largest model how much memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from neuroal.config import ModelConfig, RunConfig
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import State, Status

ZOO = Path(__file__).parents[1] / "zoo"
PARAMETERS = {"microsoft/phi-2": 2.8e9}
"""Of hub models whose names do not say it."""
GPU_RATE, CPU_RATE = 2e14, 5e10
"""Floating-point operations a second that the pipeline gets out of a large GPU, or of one core."""
CANDIDATES = 29
"""Of a search over one window set; what NeuroAL's two steps have."""
TOKENS_OF_A_TASK = 3e5
SURROUNDINGS = 1.5
"""Peak memory over that of the weights: activations, one block's statistics."""

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """Of the runs that are not done.

    Attributes:
        seconds: of one worker for all of them; None: nothing is known of a model.
        peak_bytes: of the largest; None: likewise.
        measured: how many of them are estimated from finished runs of the same model.
        runs: how many there are.
    """

    seconds: float | None
    peak_bytes: int | None
    measured: int
    runs: int


def estimate(runs: Sequence[PlannedRun], statuses: Sequence[Status], on_gpu: bool) -> Estimate:
    """From finished runs of the same model and methods, else of the model, else from its size."""
    finished: dict[tuple[str, ...], list[tuple[float, int]]] = {}
    for planned, status in zip(runs, statuses, strict=True):
        if status.state is State.DONE and status.summary is not None:
            for key in _keys(planned.config):
                cost = (status.summary.seconds, status.summary.peak_bytes)
                finished.setdefault(key, []).append(cost)
    due = [p for p, s in zip(runs, statuses, strict=True) if s.state is not State.DONE]
    seconds: list[float | None] = []
    peaks: list[int | None] = []
    measured = 0
    for planned in due:
        known = next((finished[k] for k in _keys(planned.config) if k in finished), None)
        measured += known is not None
        if known is not None:
            seconds.append(median(spent for spent, _ in known))
            peaks.append(max(peak for _, peak in known))
        else:
            parameters = parameters_of(planned.config.model)
            seconds.append(_rough(planned.config, parameters, on_gpu))
            width = 2 if on_gpu else 4
            peaks.append(None if parameters is None else int(SURROUNDINGS * width * parameters))
    spent, held = _all_known(seconds), _all_known(peaks)
    return Estimate(sum(spent) if spent else None, max(held) if held else None, measured, len(due))


def _keys(config: RunConfig) -> Iterable[tuple[str, ...]]:
    methods = (config.pruner, config.topup, config.refine)
    names = tuple(str((node or {}).get("_target_")) for node in methods)
    yield (config.model.path, *names)
    yield (config.model.path, *names[:2])
    yield (config.model.path,)


def _rough(config: RunConfig, parameters: float | None, on_gpu: bool) -> float | None:
    """Passes through the model, at two operations a parameter and token."""
    if parameters is None:
        return None
    calibration = config.calibration
    windows = 2 * (calibration.windows + CANDIDATES * calibration.search_windows)
    tokens = (
        windows * (calibration.seqlen or _window(config.model))
        + len(config.task.names) * TOKENS_OF_A_TASK
    )
    return 2 * parameters * tokens / (GPU_RATE if on_gpu else CPU_RATE)


def _window(model: ModelConfig) -> int:
    """Tokens of a window that nobody gave a length."""
    try:
        known = json.loads((_folder(model) / "config.json").read_text())
    except (OSError, ValueError):
        known = {}
    return min(2048, int(known.get("max_position_embeddings", 2048)))


def _folder(model: ModelConfig) -> Path:
    return ZOO / model.path if model.source == "zoo" else Path(model.path)


def parameters_of(model: ModelConfig) -> float | None:
    """Parameters of a model by its files, or by its name as in ``llama-7b``; None: unknown."""
    folder = _folder(model)
    if folder.is_dir():
        files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
        return sum(file.stat().st_size for file in files) / 2  # two bytes each, as most have
    if model.path in PARAMETERS:
        return PARAMETERS[model.path]
    found = re.search(r"(\d+(?:\.\d+)?)b\b", model.path.lower())
    return float(found[1]) * 1e9 if found else None


def _all_known(values: Iterable[T | None]) -> list[T] | None:
    """The values; None if there are none, or one is not known."""
    found = list(values)
    return None if not found or None in found else [value for value in found if value is not None]
