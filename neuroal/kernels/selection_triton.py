"""GPU kernel of `neuroal.kernels.selection`: one pass over the weights, without sorting.

Each program bisects one row for the threshold that has exactly the requested number of scores at
or below it. The bisected values are integers, which registers hold as float32. Counting one of
them then takes two instructions of high throughput: a subtraction that saturates at 0 and 1, and
an addition. There are up to three rounds. Real weights mostly need only the first round and half
of its steps:

0. Bisect the upper 24 of the 32 bits that order float32 scores.
1. Among scores whose upper bits equal the threshold's, bisect the lower 8 bits.
2. Among scores equal to the threshold (ties), bisect the columns.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

_OUTSIDE = tl.constexpr(0x7FFFFFFF)
"""Key of columns outside of the row; larger than the key of every number and infinity."""
_FAR = tl.constexpr(1e9)
"""Number that is larger than every threshold."""
_REGISTERS = 80
"""Register limit per thread up to eight warps. Higher limits cut occupancy, lower ones spill."""


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
    """Compute integer keys in the order of the scores |value|·row factor·column factor.

    Without `SCORE` and `BY_COL`, the keys are in the order of the values.

    Each round recomputes the keys, since keeping them in registers would lower occupancy. The
    compiler does not merge loads that differ in `CACHE`.
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
    """Return the position of a column in the pruning order of equal scores."""
    return cols - 1 - places if TIES_TO_HIGHER else places


@triton.jit  # type: ignore[untyped-decorator]
def _numbers(  # type: ignore[no-untyped-def]
    values,
    row_factor,
    col_factors,
    places,
    cols,
    prefix,
    SCORE: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    TIES_TO_HIGHER: tl.constexpr,  # noqa: N803
    ROUND: tl.constexpr,  # noqa: N803
):
    """Compute the numbers that a round bisects.

    Scores below the threshold of the previous round (`prefix`) become −1 and are pruned in any
    case; scores above it become `_FAR` and remain in any case.
    """
    cache: tl.constexpr = ("", ".ca", ".cg")[ROUND]
    keys = _keys(values, row_factor, col_factors, places, cols, SCORE, BY_COL, cache)
    if ROUND == 0:
        return tl.where(keys == _OUTSIDE, _FAR, (keys >> 8).to(tl.float32))
    if ROUND == 1:
        leading, number = keys >> 8, keys & 255
    else:
        leading, number = keys, _order(places, cols, TIES_TO_HIGHER)
    return tl.where(
        leading == prefix, number.to(tl.float32), tl.where(leading < prefix, -1.0, _FAR)
    )


@triton.jit  # type: ignore[untyped-decorator]
def _search(  # type: ignore[no-untyped-def]
    values,
    row_factor,
    col_factors,
    cols,
    prefix,
    target,
    total,
    SCORE: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    TIES_TO_HIGHER: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    THREE: tl.constexpr,  # noqa: N803
    ROUND: tl.constexpr,  # noqa: N803
):
    """Run one round and return its threshold and the number of entries at or below it.

    The threshold is the lowest one with at least `target` entries at or below it. The search stops
    early at a threshold with exactly `target` entries. `total` entries are not `_FAR`.
    """
    one = tl.arange(0, WIDTH)
    a = _numbers(
        values, row_factor, col_factors, one, cols, prefix, SCORE, BY_COL, TIES_TO_HIGHER, ROUND
    )
    least, most = a, tl.where(a < _FAR, a, -_FAR)
    if THREE:
        two, three = one + WIDTH, one + 2 * WIDTH
        b = _numbers(
            values, row_factor, col_factors, two, cols, prefix, SCORE, BY_COL, TIES_TO_HIGHER, ROUND
        )
        c = _numbers(
            values, row_factor, col_factors, three, cols, prefix, SCORE, BY_COL, TIES_TO_HIGHER,
            ROUND,
        )  # fmt: skip
        least = tl.minimum(least, tl.minimum(b, c))
        most = tl.maximum(most, tl.where(b < _FAR, b, -_FAR))
        most = tl.maximum(most, tl.where(c < _FAR, c, -_FAR))
    # Invariant: at most `target` entries are ≤ low − 1, and `total` ≥ `target` are ≤ high.
    low, high = tl.min(least, 0), tl.max(most, 0)
    low -= 1
    while (low < high) & (total != target):
        middle = tl.floor((low + high) / 2)
        below = tl.clamp(middle + 1 - a, 0.0, 1.0)
        if THREE:
            below += tl.clamp(middle + 1 - b, 0.0, 1.0) + tl.clamp(middle + 1 - c, 0.0, 1.0)
        here = tl.sum(below, 0)
        enough = here >= target
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
    group_rows,
    SCORE: tl.constexpr,  # noqa: N803
    BY_ROW: tl.constexpr,  # noqa: N803
    BY_COL: tl.constexpr,  # noqa: N803
    WRITE_PRUNED: tl.constexpr,  # noqa: N803
    WRITE_MASK: tl.constexpr,  # noqa: N803
    TIES_TO_HIGHER: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    THREE: tl.constexpr,  # noqa: N803
):
    """Prune one row, held as one or three pieces of `WIDTH` columns.

    Consecutive `group_rows` rows have the same column factors.
    """
    row = tl.program_id(0).to(tl.int64)
    values += row * cols
    col_factors += row // group_rows * cols
    pruned += row * cols
    mask += row * cols
    factor = 1.0
    if BY_ROW:
        factor = tl.load(row_factors + row)
    target = tl.load(counts + row).to(tl.float32)
    everything = tl.zeros([], tl.float32) + cols

    upper, total = _search(
        values, factor, col_factors, cols, 0, target, everything,
        SCORE, BY_COL, TIES_TO_HIGHER, WIDTH, THREE, 0,
    )  # fmt: skip
    threshold, last = upper * 256 + 255, cols
    if total != target:
        lower, total = _search(
            values, factor, col_factors, cols, upper, target, total,
            SCORE, BY_COL, TIES_TO_HIGHER, WIDTH, THREE, 1,
        )  # fmt: skip
        threshold = upper * 256 + lower
        if total != target:
            last, total = _search(
                values, factor, col_factors, cols, threshold, target, total,
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
            remaining = tl.where(chosen, 0.0, value.to(tl.float32)).to(value.dtype)
            tl.store(pruned + places, remaining, mask=inside)
        if WRITE_MASK:
            tl.store(mask + places, chosen.to(tl.int8), mask=inside)


def lowest_per_row(scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False) -> Tensor:
    """Compute `neuroal.kernels.selection.lowest_per_row` on a GPU."""
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
    """Compute `neuroal.kernels.selection.prune_rows` on a GPU, without sorting the scores."""
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
    groups = 1 if col_factors is None or col_factors.dim() == 1 else len(col_factors)
    width = max(triton.next_power_of_2(cols), 16)
    three = width >= 64 and cols <= 3 * width // 4  # pad to 3/4 of the width
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
            counts.to(values.device, non_blocking=True),
            unused if pruned is None else pruned,
            unused if mask is None else mask.view(torch.int8),
            cols,
            rows // groups,
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
