"""GPU kernels of `neuroal.kernels.bands`: one pass over their inputs, without temporaries."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 1024
"""Columns that a program processes at once."""


@triton.jit  # type: ignore[untyped-decorator]
def _band_sums(  # type: ignore[no-untyped-def]
    gradient,
    weight,
    ranks,
    low,
    high,
    sums,
    cols,
    span,
    inverse_scale,
    curvature,
    BANDED: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    first, beyond = tl.load(low + row), tl.load(high + row)
    total = tl.zeros([COLUMNS], dtype=tl.float32)
    for begin in range(0, cols, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        place, there = row * cols + column, column < cols
        rank = tl.load(ranks + place, mask=there, other=-1)
        inside = there & (rank >= first) & (rank < beyond)
        entry = row * span + (rank - first).to(tl.int64) if BANDED else place
        slope = tl.load(gradient + entry, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
        gain = -slope * value * inverse_scale
        total += gain + curvature * gain * gain
    tl.store(sums + row, tl.sum(total, 0))


def band_sums(
    gradient: Tensor,
    weight: Tensor,
    ranks: Tensor,
    low: Tensor,
    high: Tensor,
    scale: float,
    curvature: float,
) -> Tensor:
    """Return the sum of the costs (`band_costs`) over ranks [low, high) of each row: (rows,)."""
    rows, cols = ranks.shape
    sums = torch.empty(rows, dtype=torch.float32, device=ranks.device)
    with torch.cuda.device_of(ranks):
        _band_sums[(rows,)](
            gradient.contiguous(),
            weight.contiguous(),
            ranks,
            low,
            high,
            sums,
            cols,
            gradient.shape[1],
            1 / scale,
            curvature,
            BANDED=gradient.shape != ranks.shape,
            COLUMNS=COLUMNS,
        )
    return sums


@triton.jit  # type: ignore[untyped-decorator]
def _entries(  # type: ignore[no-untyped-def]
    values,
    ranks,
    low,
    high,
    output,
    cols,
    span,
    COLUMNS: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    place, there = row * cols + column, column < cols
    first, beyond = tl.load(low + row), tl.load(high + row)
    rank = tl.load(ranks + place, mask=there, other=-1)
    inside = there & (rank >= first) & (rank < beyond)
    value = tl.load(values + place, mask=inside, other=0.0)
    tl.store(output + row * span + (rank - first).to(tl.int64), value, mask=inside)


def band_entries(values: Tensor, ranks: Tensor, low: Tensor, high: Tensor, span: int) -> Tensor:
    """Return the entries with ranks [low, high) of each row, and zeros behind: (rows, span)."""
    rows, cols = values.shape
    output = values.new_zeros(rows, span)
    with torch.cuda.device_of(values):
        _entries[(rows, triton.cdiv(cols, COLUMNS))](
            values.contiguous(), ranks, low, high, output, cols, span, COLUMNS=COLUMNS
        )
    return output


@triton.jit  # type: ignore[untyped-decorator]
def _zeroed(  # type: ignore[no-untyped-def]
    weight,
    ranks,
    counts,
    output,
    cols,
    COLUMNS: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    place, there = row * cols + column, column < cols
    remains = tl.load(ranks + place, mask=there, other=0) >= tl.load(counts + row)
    value = tl.load(weight + place, mask=there & remains, other=0.0)
    tl.store(output + place, value, mask=there)


def zeroed_below_rank(weight: Tensor, ranks: Tensor, counts: Tensor) -> Tensor:
    """Compute `neuroal.kernels.bands.zeroed_below_rank`."""
    rows, cols = weight.shape
    output = torch.empty_like(weight)
    with torch.cuda.device_of(weight):
        _zeroed[(rows, triton.cdiv(cols, COLUMNS))](
            weight, ranks, counts, output, cols, COLUMNS=COLUMNS
        )
    return output
