"""Clocks, memory counters, and a folder with one JSON file for each measurement."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.execution.runner import BlockRunner
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.records.identity import environment
from neuroal.sparsity.budget import Rules, linear_budgets
from neuroal.sparsity.plan import uniform_plan

RESULTS = Path(__file__).resolve().parents[2] / "results" / "benchmark"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LONG = ("packages", "command", "report", "found", "longest", "gaps")
"""Fields of a result that are not printed."""


@dataclass(frozen=True)
class Store:
    """A folder of measurements, one JSON file each.

    Attributes:
        folder: where the files are.
        again: whether to repeat measurements that have a file.
    """

    folder: Path
    again: bool = False

    def measure(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Return the result of `work` and store it under `name`.

        Return a stored result unchanged, unless `again`. Print an error of `work` and return None.
        """
        path = self.folder / f"{name}.json"
        if path.exists() and not self.again:
            print(f"{name}: kept", flush=True)
            return dict(json.loads(path.read_text()))
        free_memory()
        start = time.perf_counter()
        try:
            figures = work()
        except Exception:
            traceback.print_exc()
            print(f"{name}: FAILED", file=sys.stderr, flush=True)
            return None
        versions = environment(DEVICE)
        result = {
            "name": name,
            **figures,
            "device": versions["device"],
            "packages": versions["packages"],
            "date": str(date.today()),
            "command": " ".join(["python experiments/benchmark.py", *sys.argv[1:]]),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        short = {key: value for key, value in result.items() if key not in LONG}
        print(f"{name} ({time.perf_counter() - start:.0f} s): {json.dumps(short)}", flush=True)
        return result

    def results(self) -> dict[str, dict[str, Any]]:
        """Return name → result of every measurement in the folder, sorted by name."""
        return {p.stem: json.loads(p.read_text()) for p in sorted(self.folder.glob("*.json"))}


def free_memory() -> None:
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def now() -> float:
    """Return the clock in seconds, after the GPU has finished all work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(work: Callable[[], Any]) -> float:
    start = now()
    work()
    return now() - start


def median_seconds(work: Callable[[], Any], repeat: int = 5) -> float:
    """Return the median of `repeat` runs, after one warm-up run."""
    work()
    return statistics.median(seconds_of(work) for _ in range(repeat))


def compile_seconds(
    decoder: DecoderModel,
    pruner: Pruner,
    tokens: Tensor,
    needs: frozenset[Need],
    sparsity: float = 0.7,
) -> float:
    """Return the compile time of a block: first-call minus second-call seconds.

    Runs the first block if there are `needs`, and prunes it in the ways of a search and of a
    pruning, so that none of their kernels is compiled later. The weights are unchanged.
    """
    budgets = linear_budgets(uniform_plan(decoder, sparsity), decoder, Rules.EXACT)

    def work() -> None:
        statistics: Mapping[str, InputStatistics] = {}
        with decoder.present(0):
            if needs:
                runner = BlockRunner.capture(decoder, tokens, len(tokens))
                _, statistics = runner.measure(0, runner.embedded, needs, outputs=False)
                runner.run(0, runner.embedded)
            for linear in decoder.linears[0]:
                weight, inputs = linear.weight, statistics.get(linear.key)
                pruner.pruned_weight(weight, inputs, budgets[linear.key])
                pruner.prune(weight, inputs, budgets[linear.key])

    return seconds_of(work) - seconds_of(work)


def reset_peak() -> None:
    for device in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib() -> float | None:
    """Return the peak memory of tensors since `reset_peak` on the fullest GPU, if there is one."""
    peaks = [torch.cuda.max_memory_allocated(n) for n in range(torch.cuda.device_count())]
    return round(max(peaks) / 2**30, 2) if peaks else None
