"""GPU kernels of `neuroal.kernels.global_scores`: one pass over a weight, without temporaries."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuroal.kernels.score_terms import ScoreTerms

ENTRIES = 4096
"""Entries that a program processes at once."""
STEPS = 16
"""Times that a program of the histogram does so, before it adds to the counts of all."""


@triton.jit  # type: ignore[untyped-decorator]
def _bits(  # type: ignore[no-untyped-def]
    weight,
    shares,
    scale,
    rows,
    cols,
    width,
    place,
    there,
    FACTORED: tl.constexpr,  # noqa: N803
):
    value = tl.abs(tl.load(weight + place, mask=there, other=0.0).to(tl.float32))
    if FACTORED:
        score = value * tl.load(cols + place % width, mask=there, other=0.0)
        score = score * tl.load(rows + place // width, mask=there, other=0.0)
    else:
        share = tl.load(shares + place, mask=there, other=0.0).to(tl.float32)
        score = (value * value) * (share * tl.load(scale))
    return score.to(tl.int32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _histogram(  # type: ignore[no-untyped-def]
    weight, shares, scale, rows, cols, counts, entries, width, prefix,
    SHIFT: tl.constexpr, BITS: tl.constexpr, FACTORED: tl.constexpr,  # noqa: N803
    ENTRIES: tl.constexpr, STEPS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    bins = tl.arange(0, 2**BITS)
    total = tl.zeros([2**BITS], dtype=tl.int32)
    for step in range(STEPS):
        begin = (tl.program_id(0).to(tl.int64) * STEPS + step) * ENTRIES
        place = begin + tl.arange(0, ENTRIES)
        there = place < entries
        bits = _bits(weight, shares, scale, rows, cols, width, place, there, FACTORED)
        inside = there & ((bits >> (SHIFT + BITS)) == prefix)
        count = tl.sum(inside.to(tl.int32), 0)
        if count > 0:
            # The others are counted as digit 0, and then subtracted.
            digit = tl.where(inside, (bits >> SHIFT) & (2**BITS - 1), 0)
            total += tl.histogram(digit, 2**BITS)
            total -= tl.where(bins == 0, ENTRIES - count, 0)
    tl.atomic_add(counts + bins, total.to(tl.int64), mask=total != 0)


@triton.jit  # type: ignore[untyped-decorator]
def _zeroed(  # type: ignore[no-untyped-def]
    weight, shares, scale, rows, cols, output, entries, width, threshold,
    FACTORED: tl.constexpr, ENTRIES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    there = place < entries
    bits = _bits(weight, shares, scale, rows, cols, width, place, there, FACTORED)
    value = tl.load(weight + place, mask=there, other=0.0)
    tl.store(output + place, tl.where(bits < threshold, 0.0, value), mask=there)


def digit_histogram(
    weight: Tensor, terms: ScoreTerms, prefix: int, shift: int, width: int
) -> Tensor:
    """Compute `neuroal.kernels.global_scores.digit_histogram`."""
    counts = torch.zeros(2**width, dtype=torch.int64, device=weight.device)
    programs = triton.cdiv(weight.numel(), ENTRIES * STEPS)
    with torch.cuda.device_of(weight):
        _histogram[(programs,)](
            *_pointers(weight, terms), counts, weight.numel(), weight.shape[1], prefix,
            SHIFT=shift, BITS=width, FACTORED=terms.shares is None,
            ENTRIES=ENTRIES, STEPS=STEPS,
        )  # fmt: skip
    return counts


def zeroed_below(weight: Tensor, terms: ScoreTerms, threshold: int) -> Tensor:
    """Return a copy of `weight` with zeros where the bits of the score are below `threshold`."""
    output = torch.empty_like(weight)
    programs = triton.cdiv(weight.numel(), ENTRIES)
    with torch.cuda.device_of(weight):
        _zeroed[(programs,)](
            *_pointers(weight, terms), output, weight.numel(), weight.shape[1], threshold,
            FACTORED=terms.shares is None, ENTRIES=ENTRIES,
        )  # fmt: skip
    return output


def _pointers(weight: Tensor, terms: ScoreTerms) -> tuple[Any, ...]:
    """Return weight, shares, scale, rows and cols; `weight` takes the places of unused ones."""
    parts = (terms.shares, terms.scale, terms.rows, terms.cols)
    return weight, *(weight if part is None else part.contiguous() for part in parts)
