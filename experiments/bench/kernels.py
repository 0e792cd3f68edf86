"""Compare masks and speed of the selection kernels with the same selections in PyTorch."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from bench.common import DEVICE, Store, median_seconds
from neuroal.kernels.selection import (
    prune_rows,
    scores_of,
    sorted_lowest_per_row,
    zeroed,
)

MATRICES = ((4096, 4096), (11008, 4096), (4096, 11008), (17920, 6656), (6656, 17920))
DTYPES = ("float16", "bfloat16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def main(store: Store, arguments: argparse.Namespace) -> None:
    for (rows, cols), dtype in product(MATRICES, DTYPES):
        store.measure(f"kernels-{rows}x{cols}-{dtype}", partial(times, rows, cols, dtype))


def times(rows: int, cols: int, dtype: str) -> dict[str, Any]:
    """Return the milliseconds of a Wanda selection that returns the masked weight."""
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
    }
