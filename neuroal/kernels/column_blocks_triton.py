"""GPU kernels of `neuroal.kernels.column_blocks`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuroal.kernels.selection import Groups

ENTRIES = 4096
"""Entries whose digits a program counts."""
ROWS = 16
"""Rows that a program eliminates."""
BITS = 8
"""Bits of each of the four digits of a score, a non-negative float32 number."""
DIGITS = 4


@triton.jit  # type: ignore[untyped-decorator]
def _prefix(  # type: ignore[no-untyped-def]
    counts, remaining,
    DIGITS: tl.constexpr, BITS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Return the first digits of entry number `remaining`, and its number among equal ones."""
    prefix = remaining * 0
    bins = tl.arange(0, 2**BITS)
    for digit in tl.static_range(DIGITS):
        count = tl.load(counts + digit * 2**BITS + bins)
        before = tl.cumsum(count, 0) < remaining
        prefix = (prefix << BITS) | tl.sum(before.to(tl.int32), 0)
        remaining -= tl.sum(tl.where(before, count, 0), 0)
    return prefix, remaining


@triton.jit  # type: ignore[untyped-decorator]
def _count_digit(  # type: ignore[no-untyped-def]
    scores, counts, size, remaining,
    DIGIT: tl.constexpr, SHIFT: tl.constexpr, BITS: tl.constexpr,  # noqa: N803
    ENTRIES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    place = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    inside = place < size
    bits = tl.load(scores + place, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    if DIGIT > 0:
        prefix, remaining = _prefix(counts, remaining, DIGIT, BITS)
        inside = inside & ((bits >> (SHIFT + BITS)) == prefix)
    bins = tl.arange(0, 2**BITS)
    count = tl.histogram((bits >> SHIFT) & (2**BITS - 1), 2**BITS, mask=inside)
    tl.atomic_add(counts + DIGIT * 2**BITS + bins, count, mask=count != 0)


@triton.jit  # type: ignore[untyped-decorator]
def _count_ties(  # type: ignore[no-untyped-def]
    scores, counts, ties, size, remaining,
    DIGITS: tl.constexpr, BITS: tl.constexpr, ENTRIES: tl.constexpr,  # noqa: N803
):  # fmt: skip
    threshold, _ = _prefix(counts, remaining, DIGITS, BITS)
    place = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    inside = place < size
    bits = tl.load(scores + place, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    equal = inside & (bits == threshold)
    tl.store(ties + tl.program_id(0), tl.sum(equal.to(tl.int32), 0))


@triton.jit  # type: ignore[untyped-decorator]
def _mask(  # type: ignore[no-untyped-def]
    scores, counts, ties, mask, size, remaining,
    DIGITS: tl.constexpr, BITS: tl.constexpr, ENTRIES: tl.constexpr,  # noqa: N803
    ALL_TIES: tl.constexpr, PROGRAMS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    threshold, missing = _prefix(counts, remaining, DIGITS, BITS)
    program = tl.program_id(0)
    place = program * ENTRIES + tl.arange(0, ENTRIES)
    inside = place < size
    bits = tl.load(scores + place, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    equal = inside & (bits == threshold)
    if not ALL_TIES:
        others = tl.arange(0, PROGRAMS)
        earlier = tl.sum(tl.load(ties + others, mask=others < program, other=0), 0)
        equal = equal & (tl.cumsum(equal.to(tl.int32), 0) + earlier <= missing)
    pruned = (bits < threshold) | equal
    tl.store(mask + place, (pruned & (remaining > 0)).to(tl.int8), mask=inside)


def lowest_overall(scores: Tensor, count: int, all_ties: bool) -> Tensor:
    """Compute `neuroal.kernels.column_blocks.lowest_overall`."""
    scores, size = scores.contiguous(), scores.numel()
    programs = triton.cdiv(size, ENTRIES)
    counts = torch.zeros(DIGITS * 2**BITS, dtype=torch.int32, device=scores.device)
    ties = torch.empty(programs, dtype=torch.int32, device=scores.device)
    mask = torch.empty_like(scores, dtype=torch.bool)
    sizes = {"BITS": BITS, "ENTRIES": ENTRIES}
    with torch.cuda.device_of(scores):
        for digit in range(DIGITS):
            shift = (DIGITS - 1 - digit) * BITS
            _count_digit[(programs,)](
                scores, counts, size, count, DIGIT=digit, SHIFT=shift, **sizes
            )
        if not all_ties:
            _count_ties[(programs,)](scores, counts, ties, size, count, DIGITS=DIGITS, **sizes)
        _mask[(programs,)](
            scores, counts, ties, mask.view(torch.int8), size, count, DIGITS=DIGITS,
            ALL_TIES=all_ties, PROGRAMS=triton.next_power_of_2(programs), **sizes,
        )  # fmt: skip
    return mask


@triton.jit  # type: ignore[untyped-decorator]
def _eliminate(  # type: ignore[no-untyped-def]
    block, block_stride, triangle, triangle_stride, target, target_stride, errors, lowest,
    rows, width, group, zeros, zeros_of_last,
    GROUPS: tl.constexpr, TARGET: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < rows) & (column < width)
    tile = tl.load(block + row * block_stride + column, mask=inside, other=0.0)
    error = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    chosen = tl.zeros([ROWS, WIDTH], dtype=tl.int1)
    pruned = chosen
    if TARGET:
        place = target + row * target_stride + column
        pruned = tl.load(place, mask=inside, other=0) != 0
    diagonal = tl.load(triangle + column * (triangle_stride + 1), mask=column < width, other=1.0)
    for at in range(width):
        if GROUPS and at % group == 0:
            scores = tl.div_rn(tile * tile, diagonal * diagonal + tl.zeros_like(tile))
            rank = tl.zeros([ROWS, WIDTH], dtype=tl.int32)
            for other in range(at, min(at + group, width)):
                score = tl.sum(tl.where(column == other, scores, 0.0), 1)[:, None]
                lower = (score < scores) | ((score == scores) & (other < column))
                rank += lower.to(tl.int32)
            count = tl.where(at + group <= width, zeros, zeros_of_last)
            members = (column >= at) & (column < at + group)
            chosen = chosen | (members & (rank < count))
            if not TARGET:
                pruned = chosen
        gone = (column == at) & pruned
        scale = tl.load(triangle + at * triangle_stride + at)
        following = tl.load(
            triangle + at * triangle_stride + column, mask=column < width, other=0.0
        )
        removed = tl.sum(tl.where(gone, tile, 0.0), 1)
        removed = tl.div_rn(removed, scale + tl.zeros_like(removed))[:, None]
        tile = tl.where(gone, 0.0, tile - removed * following)
        error = tl.where(column == at, removed, error)
    tl.store(block + row * block_stride + column, tile, mask=inside)
    tl.store(errors + row * width + column, error, mask=inside)
    if GROUPS:
        tl.store(lowest + row * width + column, chosen.to(tl.int8), mask=inside)


def eliminate(block: Tensor, triangle: Tensor, mask: Tensor) -> Tensor:
    """Compute `neuroal.kernels.column_blocks.eliminate`."""
    return _run(block, triangle, None, mask)[0]


def eliminate_groups(
    block: Tensor, triangle: Tensor, groups: Groups, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute `neuroal.kernels.column_blocks.eliminate_groups`."""
    return _run(block, triangle, groups, target)


def _run(
    block: Tensor, triangle: Tensor, groups: Groups | None, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    if block.stride(1) != 1 or triangle.stride(1) != 1:
        raise ValueError("the rows of a block and of its factor must be contiguous")
    rows, width = block.shape
    errors = torch.empty(rows, width, device=block.device)
    lowest = torch.empty(rows, width, dtype=torch.bool, device=block.device)
    if target is not None and target.stride(1) != 1:
        target = target.contiguous()
    entries = lowest if target is None else target
    sizes = (1, 0, 0) if groups is None else (groups.of, groups.zeros, groups.zeros_of_last)
    with torch.cuda.device_of(block):
        _eliminate[(triton.cdiv(rows, ROWS),)](
            block, block.stride(0), triangle, triangle.stride(0),
            entries.view(torch.int8), entries.stride(0), errors, lowest.view(torch.int8),
            rows, width,
            *sizes,
            GROUPS=groups is not None, TARGET=target is not None,
            ROWS=ROWS, WIDTH=max(16, triton.next_power_of_2(width)),
        )  # fmt: skip
    return errors, lowest
