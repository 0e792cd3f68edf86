"""The selection kernels against their PyTorch twins: the same masks, and how fast."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from bench.common import DEVICE, Store, median_seconds
from neuroal.kernels.selection import (
    has_kernel,
    lowest_per_row,
    prune_rows,
    scores_of,
    sorted_lowest_per_row,
    zeroed,
)
from neuroal.statistics import InputStatistics, Need, StatisticsCollector

MATRICES = ((4096, 4096), (11008, 4096), (4096, 11008), (17920, 6656), (6656, 17920))
DTYPES = ("float16", "bfloat16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=300, help="random matrices to compare")


def main(store: Store, arguments: argparse.Namespace) -> None:
    store.measure("kernels-fuzz", lambda: fuzz(arguments.trials))
    store.measure("kernels-statistics", statistics)
    for rows, cols in MATRICES:
        for dtype in DTYPES:
            store.measure(
                f"kernels-{rows}x{cols}-{dtype}",
                lambda rows=rows, cols=cols, dtype=dtype: times(rows, cols, dtype),
            )


def times(rows: int, cols: int, dtype: str) -> dict[str, Any]:
    """Milliseconds of a Wanda selection that leaves the masked weight."""
    weight = torch.randn(rows, cols, device=DEVICE, dtype=getattr(torch, dtype))
    norm = torch.rand(cols, device=DEVICE) + 0.5
    counts = torch.full((rows,), int(0.7 * cols), device=DEVICE)

    def twin() -> Tensor:
        mask = sorted_lowest_per_row(scores_of(weight, None, norm), counts)
        return zeroed(weight, mask)

    def stable() -> Tensor:
        return torch.sort(scores_of(weight, None, norm), dim=-1, stable=True)[1]

    def kernel() -> Tensor:
        return prune_rows(weight, None, norm, counts, with_mask=False)[0]

    return {
        "kernel_ms": 1e3 * median_seconds(kernel, 20),
        "twin_ms": 1e3 * median_seconds(twin, 5),
        "stable_sort_ms": 1e3 * median_seconds(stable, 5),
        "equal": torch.equal(kernel(), twin()),
        "is_kernel": has_kernel(weight),
    }


def statistics() -> dict[str, Any]:
    """Statistics of halves without float32 copies, against those of the copies."""
    found: dict[str, Any] = {}
    for dtype in DTYPES[:2]:
        x = torch.randn(4, 2048, 4096, device=DEVICE, dtype=getattr(torch, dtype))
        for need in (Need.NORM, Need.SUM, Need.GRAM):

            def collect(x: Tensor, need: Need = need) -> InputStatistics:
                collector = StatisticsCollector(frozenset({need}))
                collector.start_batch(len(x))
                collector.see("x", x)
                return collector.finish()["x"]

            mine, theirs = collect(x), collect(x.float())
            a, b = (
                {Need.NORM: y.square_sums, Need.SUM: y.sums, Need.GRAM: y.gram}[need]
                for y in (mine, theirs)
            )
            assert a is not None
            assert b is not None
            found[f"{need.value}-{dtype}"] = {
                "ms": 1e3 * median_seconds(lambda: collect(x), 10),  # noqa: B023
                "copied_ms": 1e3 * median_seconds(lambda: collect(x.float()), 3),  # noqa: B023
                "difference": float((a - b).abs().max() / b.abs().max()),
            }
    return found


def fuzz(trials: int) -> dict[str, Any]:
    """Random matrices with ties, zeros, infinities, odd sizes; all counts from 0 to all."""
    generator = torch.Generator().manual_seed(0)
    different = []
    for trial in range(trials):
        rows, cols = (int(torch.randint(1, high, (1,), generator=generator)) for high in (70, 3000))
        cols = max(cols, 32)
        scores = torch.randn(rows, cols, generator=generator)
        if trial % 3 == 0:
            scores = scores.mul(2).round()
        if trial % 4 == 0:
            scores[:, ::5] = float("inf")
            scores[:, 1::7] = float("-inf") if trial % 8 else 0.0
        if trial % 5 == 0:
            scores[0] = -0.0
        scores = scores.to(DEVICE, getattr(torch, DTYPES[trial % len(DTYPES)]))
        counts = torch.randint(0, cols + 1, (rows,), generator=generator)
        counts[:: max(rows // 3, 1)] = (0, cols)[trial % 2]
        for higher in (False, True):
            mine = lowest_per_row(scores, counts, ties_to_higher=higher)
            theirs = sorted_lowest_per_row(scores, counts, ties_to_higher=higher)
            if not torch.equal(mine, theirs):
                different.append([trial, higher, str(scores.dtype)])
    return {
        "trials": 2 * trials,
        "different": different,
        "is_kernel": has_kernel(torch.zeros(1, 64, device=DEVICE)),
    }
