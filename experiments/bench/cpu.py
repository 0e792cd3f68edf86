"""Time the search on SmolLM2 on a CPU, in forward equivalents.

A dense pass is timed before the search and, with the search's clock stopped, after every candidate,
so that other work on the machine slows both equally. Processor seconds of this process are measured
as well: with one thread (`OMP_NUM_THREADS=1`) they do not depend on other processes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.common import Store
from bench.models import allocation_context
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import resolve_device
from neuroal.models.load import LoadedModel, load_model
from neuroal.pipeline import Recipe
from neuroal.tracking import Step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="cpu-search", help="name of the measurement")
    parser.add_argument("--overrides", nargs="*", default=[], help="as for the command neuroal")


@dataclass(frozen=True)
class Seconds:
    """Seconds by the clock, and processor seconds of this process."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.clock + other.clock, self.processor + other.processor)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.clock - other.clock, self.processor - other.processor)


class Interleaved:
    """A progress that times a dense pass after every candidate."""

    def __init__(self, dense: Callable[[], Seconds]) -> None:
        self._dense = dense
        self.passes = [dense() for _ in range(4)][1:]
        self.paused = Seconds(0.0, 0.0)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        outer = self

        class Candidate:
            def advance(self, count: int = 1, **info: object) -> None:
                begin = Seconds.now()
                outer.passes.append(outer._dense())
                outer.paused += Seconds.now() - begin

        yield Candidate()


def main(store: Store, arguments: argparse.Namespace) -> None:
    store.measure(arguments.name, lambda: search(arguments.overrides))


def prepare(overrides: list[str]) -> tuple[LoadedModel, Recipe, Tensor]:
    """Return the model, the recipe and the search windows that `overrides` select."""
    from neuroal.cli.main import composed
    from neuroal.data.text import CalibrationText
    from neuroal.pipeline import calibration_windows, make_recipe

    config = composed(
        [
            "model=smollm2-135m-instruct-q4",
            "calibration.search_windows=8",
            "calibration.seqlen=256",
            "device=cpu",
            *overrides,
        ]
    )
    loaded = load_model(config.model, resolve_device(config.device))
    text = CalibrationText.find(config.calibration, config.data.root)
    _, windows = calibration_windows(config, text, loaded)
    return loaded, make_recipe(config), windows.tokens


def search(overrides: list[str]) -> dict[str, Any]:
    """Time one search on the model that `overrides` select."""
    loaded, recipe, tokens = prepare(overrides)
    progress = Interleaved(lambda: dense_pass(loaded, tokens))
    decoder = DecoderModel(loaded.model)
    context = allocation_context(
        decoder, recipe.settings.pruner, recipe.settings.sparsity, tokens, progress=progress
    )
    begin = Seconds.now()
    report = recipe.topup.allocate(context).report
    spent = Seconds.now() - begin - progress.paused
    candidates = sum(len(report.get(f"criterion_{step}", [])) for step in ("block", "row"))
    clock = [seconds.clock for seconds in progress.passes]
    forward = statistics.median(clock)
    work = statistics.median(seconds.processor for seconds in progress.passes)
    return {
        "model": loaded.name,
        "windows": f"{len(tokens)} × {tokens.shape[1]} tokens",
        "pruner": f"{type(recipe.settings.pruner).__name__}, {recipe.settings.sparsity}",
        "search": getattr(recipe.topup, "search", None),
        "threads": torch.get_num_threads(),
        "candidates": candidates,
        "forward_seconds": forward,
        "forward_range": [min(clock), max(clock)],
        "seconds": spent.clock,
        "equivalents": spent.clock / (candidates * 2 * forward),
        "processor_seconds": spent.processor,
        "processor_equivalents": spent.processor / (candidates * 2 * work),
        "lambda_block": report.get("lambda_block"),
        "lambda_row": report.get("lambda_row"),
    }


@torch.no_grad()
def dense_pass(loaded: LoadedModel, tokens: Tensor) -> Seconds:
    """Time one pass of the blocks over all windows, without the language-model head."""
    begin = Seconds.now()
    loaded.model.base_model(tokens, use_cache=False)
    return Seconds.now() - begin
