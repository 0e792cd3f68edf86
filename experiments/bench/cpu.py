"""The search on a real model on the CPU, in forward equivalents; not for the 7B shape.

A dense pass is timed before the search and, its clock stopped, after every candidate, so that other
work on the machine slows both alike. Beside the clock's, there are the processor's seconds of this
process: with one thread (`OMP_NUM_THREADS=1`) they do not depend on what else runs.
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
from neuroal.models.adapter import DecoderModel
from neuroal.models.load import LoadedModel, load_model, resolve_device
from neuroal.topups.base import AllocationContext
from neuroal.tracking import Step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="cpu-search", help="of the measurement")
    parser.add_argument("--overrides", nargs="*", default=[], help="as for the command neuroal")


@dataclass(frozen=True)
class Seconds:
    """By the clock, and of this process on all processors."""

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


def search(overrides: list[str]) -> dict[str, Any]:
    from neuroal.cli import composed
    from neuroal.run import calibration_for, make_recipe

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
    _, windows = calibration_for(config, loaded)
    recipe, tokens = make_recipe(config), windows.tokens
    progress = Interleaved(lambda: dense_pass(loaded, tokens))
    context = AllocationContext(
        subject=DecoderModel(loaded.model),
        pruner=recipe.pruner,
        sparsity=recipe.sparsity,
        rules=recipe.rules,
        tokens=tokens,
        batch=len(tokens),
        progress=progress,
    )
    begin = Seconds.now()
    report = recipe.topup.allocate(context).report
    seconds = Seconds.now() - begin - progress.paused
    candidates = sum(len(report.get(f"criterion_{step}", [])) for step in ("block", "row"))
    clock = [found.clock for found in progress.passes]
    forward = statistics.median(clock)
    work = statistics.median(found.processor for found in progress.passes)
    return {
        "model": loaded.name,
        "windows": f"{len(tokens)} × {tokens.shape[1]} tokens",
        "pruner": f"{type(recipe.pruner).__name__}, {recipe.sparsity}",
        "search": getattr(recipe.topup, "search", None),
        "threads": torch.get_num_threads(),
        "candidates": candidates,
        "forward_seconds": forward,
        "forward_range": [min(clock), max(clock)],
        "seconds": seconds.clock,
        "equivalents": seconds.clock / (candidates * 2 * forward),
        "equivalents_by_mean": seconds.clock / (candidates * 2 * statistics.mean(clock)),
        "processor_seconds": seconds.processor,
        "processor_equivalents": seconds.processor / (candidates * 2 * work),
        "lambda_block": report.get("lambda_block"),
        "lambda_row": report.get("lambda_row"),
    }


@torch.no_grad()
def dense_pass(loaded: LoadedModel, tokens: Tensor) -> Seconds:
    """Of one pass of the blocks over all windows (without the language-model head)."""
    begin = Seconds.now()
    loaded.model.base_model(tokens, use_cache=False)
    return Seconds.now() - begin
