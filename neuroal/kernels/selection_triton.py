"""The lowest scores of every row on a GPU, without sorting: one pass over the weights.

Each program holds a row in registers, as integers in the order of its scores, and bisects between
the least and the greatest of them. It stops as soon as some threshold leaves just the wanted number
at or below it, which on real weights is after about half of the 32 steps.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

_OUTSIDE = tl.constexpr(0x7FFFFFFF)
"""Above every number and infinity."""


@triton.jit  # type: ignore[untyped-decorator]
def _select_rows(  # type: ignore[no-untyped-def]
    values,
    row_factors,
    col_factors,
    counts,
    pruned,
    mask,
    cols,
    SCORE: tl.constexpr,  # noqa: N803
    BY_ROW: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    WRITE_PRUNED: tl.constexpr,  # noqa: N803
    WRITE_MASK: tl.constexpr,  # noqa: N803
    TIES_TO_HIGHER: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
):
    """One row: score = |value|·row factor·column factor (or the value itself), in float32."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, WIDTH)
    inside = places < cols
    value = tl.load(values + row * cols + places, mask=inside, other=0.0)
    score = value.to(tl.float32)
    if SCORE:
        score = tl.abs(score)
    if BY_ROW:
        score = score * tl.load(row_factors + row)
    if BY_COL:
        score = score * tl.load(col_factors + places, mask=inside, other=0.0)
    score = tl.where(score == 0, 0.0, score)  # −0 equals 0, but its bits do not
    bits = score.to(tl.int32, bitcast=True)
    keys = tl.where(inside, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), _OUTSIDE)
    count = tl.load(counts + row).to(tl.int32)
    low = tl.min(keys, 0)
    high = tl.max(tl.where(inside, keys, low), 0)
    # Invariant: at least `count` keys are ≤ high; fewer are ≤ low − 1.
    while low < high:
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, which cannot overflow
        found = tl.sum((keys <= middle).to(tl.int32), 0)
        low = tl.where(found == count, middle, tl.where(found > count, low, middle + 1))
        high = tl.where(found >= count, middle, high)
    chosen = keys <= high
    if tl.sum(chosen.to(tl.int32), 0) != count:  # a tie crosses the threshold
        below = keys < high
        equal = (keys == high).to(tl.int32)
        running = tl.cumsum(equal, 0)
        if TIES_TO_HIGHER:
            running = tl.sum(equal, 0) - running + equal
        wanted = count - tl.sum(below.to(tl.int32), 0)
        chosen = below | ((equal > 0) & (running <= wanted))
    if WRITE_PRUNED:
        kept = tl.where(chosen, 0.0, value.to(tl.float32)).to(value.dtype)
        tl.store(pruned + row * cols + places, kept, mask=inside)
    if WRITE_MASK:
        tl.store(mask + row * cols + places, chosen.to(tl.int8), mask=inside)


def lowest_per_row(scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False) -> Tensor:
    """As `neuroal.pruners.masks.lowest_per_row`, which defines it."""
    mask = torch.empty_like(scores, dtype=torch.bool, memory_format=torch.contiguous_format)
    _launch(scores, None, None, counts, None, mask, score=False, ties_to_higher=ties_to_higher)
    return mask


def prune_rows(
    weight: Tensor,
    row_factors: Tensor | None,
    col_factors: Tensor | None,
    counts: Tensor,
    *,
    ties_to_higher: bool = False,
    with_mask: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """As `neuroal.kernels.selection.prune_rows`, which defines it; neither scores nor sorts."""
    weight = weight.contiguous()
    pruned = torch.empty_like(weight)
    mask = torch.empty_like(weight, dtype=torch.bool) if with_mask else None
    _launch(
        weight, row_factors, col_factors, counts, pruned, mask, score=True,
        ties_to_higher=ties_to_higher,
    )  # fmt: skip
    return pruned, mask


def _launch(
    values: Tensor,
    row_factors: Tensor | None,
    col_factors: Tensor | None,
    counts: Tensor,
    pruned: Tensor | None,
    mask: Tensor | None,
    *,
    score: bool,
    ties_to_higher: bool,
) -> None:
    rows, cols = values.shape
    width = max(triton.next_power_of_2(cols), 16)
    values = values.contiguous()
    unused = values
    device = torch.cuda.device(values.device) if values.is_cuda else nullcontext()
    with device:
        _select_rows[(rows,)](
            values,
            unused if row_factors is None else row_factors.float().contiguous(),
            unused if col_factors is None else col_factors.float().contiguous(),
            counts.to(values.device),
            unused if pruned is None else pruned,
            unused if mask is None else mask.view(torch.int8),
            cols,
            SCORE=score,
            BY_ROW=row_factors is not None,
            BY_COL=col_factors is not None,
            WRITE_PRUNED=pruned is not None,
            WRITE_MASK=mask is not None,
            TIES_TO_HIGHER=ties_to_higher,
            WIDTH=width,
            num_warps=min(max(width // 512, 1), 32),
        )
