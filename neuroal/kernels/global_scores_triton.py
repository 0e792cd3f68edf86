"""GPU kernels of `neuroal.kernels.global_scores`: one pass over a weight, without temporaries."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuroal.kernels.score_terms import ScoreTerms

COLUMNS = 4096
"""Most columns of a row that a program processes at once."""
ENTRIES = 2**16
"""Approximate number of entries of a program of the histogram, before it adds to all counts."""


@triton.jit  # type: ignore[untyped-decorator]
def _bits(  # type: ignore[no-untyped-def]
    weight,
    factors,
    rows,
    cols,
    width,
    row,
    column,
    FACTORED: tl.constexpr,  # noqa: N803
):
    there = column < width
    place = row * width + column
    value = tl.abs(tl.load(weight + place, mask=there, other=0.0).to(tl.float32))
    if FACTORED:
        score = value * tl.load(cols + column, mask=there, other=0.0)
        score = score * tl.load(rows + row)
    else:
        score = value * value * tl.load(factors + place, mask=there, other=0.0).to(tl.float32)
    return score.to(tl.int32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _histogram(  # type: ignore[no-untyped-def]
    weight, factors, rows, cols, counts, height, width, steps, prefix,
    SHIFT: tl.constexpr, BITS: tl.constexpr, FACTORED: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    bins = tl.arange(0, 2**BITS)
    total = tl.zeros([2**BITS], dtype=tl.int32)
    for step in range(steps):
        row = tl.program_id(0).to(tl.int64) * steps + step
        for begin in range(0, tl.where(row < height, width, 0), COLUMNS):
            column = begin + tl.arange(0, COLUMNS)
            bits = _bits(weight, factors, rows, cols, width, row, column, FACTORED)
            inside = (column < width) & ((bits >> (SHIFT + BITS)) == prefix)
            digit = (bits >> SHIFT) & (2**BITS - 1)
            total += tl.histogram(digit, 2**BITS, mask=inside)
    tl.atomic_add(counts + bins, total.to(tl.int64), mask=total != 0)


@triton.jit  # type: ignore[untyped-decorator]
def _zeroed(  # type: ignore[no-untyped-def]
    weight, factors, rows, cols, output, width, threshold,
    FACTORED: tl.constexpr, COLUMNS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    bits = _bits(weight, factors, rows, cols, width, row, column, FACTORED)
    place, there = row * width + column, column < width
    value = tl.load(weight + place, mask=there, other=0.0)
    tl.store(output + place, tl.where(bits < threshold, 0.0, value), mask=there)


def digit_histogram(
    weight: Tensor, terms: ScoreTerms, prefix: int, shift: int, width: int
) -> Tensor:
    """Compute `neuroal.kernels.global_scores.digit_histogram`."""
    counts = torch.zeros(2**width, dtype=torch.int64, device=weight.device)
    rows, cols = weight.shape
    steps = max(1, ENTRIES // cols)
    with torch.cuda.device_of(weight):
        _histogram[(triton.cdiv(rows, steps),)](
            *_pointers(weight, terms), counts, rows, cols, steps, prefix,
            SHIFT=shift, BITS=width, FACTORED=terms.entries is None, COLUMNS=_columns(cols),
        )  # fmt: skip
    return counts


def zeroed_below(weight: Tensor, terms: ScoreTerms, threshold: int) -> Tensor:
    """Return a copy of `weight` with zeros where the bits of the score are below `threshold`."""
    output = torch.empty_like(weight)
    rows, cols = weight.shape
    with torch.cuda.device_of(weight):
        _zeroed[(rows, triton.cdiv(cols, _columns(cols)))](
            *_pointers(weight, terms), output, cols, threshold,
            FACTORED=terms.entries is None, COLUMNS=_columns(cols),
        )  # fmt: skip
    return output


def _columns(cols: int) -> int:
    return min(COLUMNS, int(triton.next_power_of_2(cols)))


def _pointers(weight: Tensor, terms: ScoreTerms) -> tuple[Any, ...]:
    """Return weight, entries, rows and cols; `weight` takes the places of unused ones."""
    parts = (terms.entries, terms.rows, terms.cols)
    return weight, *(weight if part is None else part.contiguous() for part in parts)
