"""The lowest scores of every row on a GPU, without sorting: one pass over the weights.

A program bisects one row for the threshold that leaves just the wanted number at or below it. What
it bisects are whole numbers, held in registers as float32, because then two instructions for which
a GPU has most units count each of them: a subtraction that saturates at 0 and 1, and a sum. There
are up to three rounds, and real weights mostly need but the first, and half of its steps:

0. the upper 24 of the 32 bits that put float32 scores into order,
1. the lower 8, where the upper ones are the threshold's,
2. the columns, where the score is the threshold: ties.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

_OUTSIDE = tl.constexpr(0x7FFFFFFF)
"""Above the bits of every number and infinity."""
_FAR = tl.constexpr(1e9)
"""Above every threshold."""
_REGISTERS = 80
"""Of a thread, up to eight warps. With more, fewer programs run at once; with less, they spill."""


@triton.jit  # type: ignore[untyped-decorator]
def _keys(  # type: ignore[no-untyped-def]
    values,
    row_factor,
    col_factors,
    places,
    cols,
    SCORE: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    CACHE: tl.constexpr,  # noqa: N803
):
    """Integers in the order of the scores |value|·row factor·column factor, or of the values.

    Every round works them out anew, since registers that kept them would leave room for fewer
    programs. (The compiler takes loads that differ in `CACHE` for different ones.)
    """
    inside = places < cols
    score = tl.load(values + places, mask=inside, other=0.0, cache_modifier=CACHE).to(tl.float32)
    if SCORE:
        score = tl.abs(score) * row_factor
    if BY_COL:
        score *= tl.load(col_factors + places, mask=inside, other=0.0, cache_modifier=CACHE)
    score = tl.where(score == 0, 0.0, score)  # −0 equals 0, but its bits do not
    bits = score.to(tl.int32, bitcast=True)
    return tl.where(inside, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), _OUTSIDE)


@triton.jit  # type: ignore[untyped-decorator]
def _order(places, cols, TIES_TO_HIGHER: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """When a column goes, of those with equal scores."""
    return cols - 1 - places if TIES_TO_HIGHER else places


@triton.jit  # type: ignore[untyped-decorator]
def _numbers(  # type: ignore[no-untyped-def]
    values,
    row_factor,
    col_factors,
    places,
    cols,
    found,
    SCORE: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    TIES_TO_HIGHER: tl.constexpr,  # noqa: N803
    ROUND: tl.constexpr,  # noqa: N803
):
    """What a round bisects; −1 is sure to go and `_FAR` to stay, by what was `found` before."""
    cache: tl.constexpr = ("", ".ca", ".cg")[ROUND]
    keys = _keys(values, row_factor, col_factors, places, cols, SCORE, BY_COL, cache)
    if ROUND == 0:
        return tl.where(keys == _OUTSIDE, _FAR, (keys >> 8).to(tl.float32))
    if ROUND == 1:
        known, number = keys >> 8, keys & 255
    else:
        known, number = keys, _order(places, cols, TIES_TO_HIGHER)
    return tl.where(known == found, number.to(tl.float32), tl.where(known < found, -1.0, _FAR))


@triton.jit  # type: ignore[untyped-decorator]
def _search(  # type: ignore[no-untyped-def]
    values,
    row_factor,
    col_factors,
    cols,
    found,
    wanted,
    total,
    SCORE: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    TIES_TO_HIGHER: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    THREE: tl.constexpr,  # noqa: N803
    ROUND: tl.constexpr,  # noqa: N803
):
    """One round: a threshold that just `wanted` numbers, or the fewest above that, are at or below.

    Returns the threshold, and how many they are. `total` of the numbers are not `_FAR`.
    """
    one = tl.arange(0, WIDTH)
    a = _numbers(
        values, row_factor, col_factors, one, cols, found, SCORE, BY_COL, TIES_TO_HIGHER, ROUND
    )
    least, most = a, tl.where(a < _FAR, a, -_FAR)
    if THREE:
        two, three = one + WIDTH, one + 2 * WIDTH
        b = _numbers(
            values, row_factor, col_factors, two, cols, found, SCORE, BY_COL, TIES_TO_HIGHER, ROUND
        )
        c = _numbers(
            values, row_factor, col_factors, three, cols, found, SCORE, BY_COL, TIES_TO_HIGHER,
            ROUND,
        )  # fmt: skip
        least = tl.minimum(least, tl.minimum(b, c))
        most = tl.maximum(most, tl.where(b < _FAR, b, -_FAR))
        most = tl.maximum(most, tl.where(c < _FAR, c, -_FAR))
    # Invariant: no more than `wanted` are ≤ low − 1, and `total`, which is no less, are ≤ high.
    low, high = tl.min(least, 0), tl.max(most, 0)
    low -= 1
    while (low < high) & (total != wanted):
        middle = tl.floor((low + high) / 2)
        below = tl.clamp(middle + 1 - a, 0.0, 1.0)
        if THREE:
            below += tl.clamp(middle + 1 - b, 0.0, 1.0) + tl.clamp(middle + 1 - c, 0.0, 1.0)
        here = tl.sum(below, 0)
        enough = here >= wanted
        low = tl.where(enough, low, middle + 1)
        high = tl.where(enough, middle, high)
        total = tl.where(enough, here, total)
    return high.to(tl.int32), total


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
    THREE: tl.constexpr,  # noqa: N803
):
    """One row, in one piece of `WIDTH` columns or in three."""
    row = tl.program_id(0).to(tl.int64)
    values += row * cols
    pruned += row * cols
    mask += row * cols
    factor = 1.0
    if BY_ROW:
        factor = tl.load(row_factors + row)
    wanted = tl.load(counts + row).to(tl.float32)
    everything = tl.zeros([], tl.float32) + cols

    upper, total = _search(
        values, factor, col_factors, cols, 0, wanted, everything,
        SCORE, BY_COL, TIES_TO_HIGHER, WIDTH, THREE, 0,
    )  # fmt: skip
    threshold, last = upper * 256 + 255, cols
    if total != wanted:
        lower, total = _search(
            values, factor, col_factors, cols, upper, wanted, total,
            SCORE, BY_COL, TIES_TO_HIGHER, WIDTH, THREE, 1,
        )  # fmt: skip
        threshold = upper * 256 + lower
        if total != wanted:
            last, total = _search(
                values, factor, col_factors, cols, threshold, wanted, total,
                SCORE, BY_COL, TIES_TO_HIGHER, WIDTH, THREE, 2,
            )  # fmt: skip

    for piece in tl.static_range(3 if THREE else 1):
        places = tl.arange(0, WIDTH) + piece * WIDTH
        inside = places < cols
        keys = _keys(values, factor, col_factors, places, cols, SCORE, BY_COL, ".ca")
        chosen = (keys == threshold) & (_order(places, cols, TIES_TO_HIGHER) <= last)
        chosen |= keys < threshold
        if WRITE_PRUNED:
            value = tl.load(values + places, mask=inside, other=0.0, cache_modifier=".ca")
            kept = tl.where(chosen, 0.0, value.to(tl.float32)).to(value.dtype)
            tl.store(pruned + places, kept, mask=inside)
        if WRITE_MASK:
            tl.store(mask + places, chosen.to(tl.int8), mask=inside)


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
    three = width >= 64 and cols <= 3 * width // 4  # in three quarters of that
    warps = min(max(width // (2048 if three else 1024), 1), 32)
    options = {"maxnreg": _REGISTERS} if warps <= 8 and torch.version.cuda else {}
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
            WIDTH=width // 4 if three else width,
            THREE=three,
            num_warps=warps,
            **options,
        )
