"""Which weights of a row go: the lowest scores, with a fixed rule for ties.

What is written here in PyTorch defines what `selection_triton` does on a GPU.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

WIDEST = 65536
"""Columns that a program of the GPU's kernel holds in registers."""
NARROWEST = 32
"""Fewer columns (the groups of an N:M pattern) would leave a program with nothing to do."""


@lru_cache(maxsize=1)
def _triton() -> bool:
    return find_spec("triton") is not None


def has_kernel(values: Tensor) -> bool:
    """Whether the Triton kernels take `values` (rows, cols); a CPU never imports Triton."""
    return (
        values.is_cuda
        and values.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and NARROWEST <= values.shape[1] <= WIDEST
        and len(values) > 0
        and _triton()
    )


def lowest_per_row(scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False) -> Tensor:
    """Mask of the lowest scores of every row.

    Args:
        scores: (rows, cols), no NaN.
        counts: (rows,) int64, how many entries of each row are pruned; 0 … cols.
        ties_to_higher: among equal scores prune the higher columns first, not the lower ones.

    Returns:
        (rows, cols) bool, True = pruned, with exactly `counts` True in the rows.
    """
    if has_kernel(scores):
        from neuroal.kernels import selection_triton

        return selection_triton.lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)
    return sorted_lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)


def sorted_lowest_per_row(
    scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False
) -> Tensor:
    """`lowest_per_row` by sorting: on any device, of any dtype."""
    counts = counts.to(scores.device)
    cols = scores.shape[1]
    ordered = _sorted_rows(scores)
    position = (counts - 1).clamp(min=0)[:, None]
    threshold = ordered.gather(1, position)
    # Where the next value up is larger than the threshold, no tie crosses it.
    following = ordered.gather(1, counts.clamp(max=cols - 1)[:, None])
    mask = scores <= threshold
    mask[counts == 0] = False
    tied = ((following == threshold).squeeze(1) & (counts > 0) & (counts < cols)).nonzero()[:, 0]
    if len(tied):
        mask[tied] = _break_ties(scores[tied], threshold[tied], counts[tied], ties_to_higher)
    return mask


def _sorted_rows(scores: Tensor) -> Tensor:
    """Ascending values of each row. On a CPU numpy's vectorised sort is several times faster."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values


def _break_ties(scores: Tensor, threshold: Tensor, counts: Tensor, to_higher: bool) -> Tensor:
    below, equal = scores < threshold, scores == threshold
    wanted = (counts - below.sum(1))[:, None]
    running = equal.flip(1).cumsum(1).flip(1) if to_higher else equal.cumsum(1)
    return below | (equal & (running <= wanted))


def scores_of(weight: Tensor, row_factors: Tensor | None, col_factors: Tensor | None) -> Tensor:
    """|W|·u·v in float32 (rows, cols), multiplied in this order; a factor may be left out."""
    scores = weight.float().abs()
    if row_factors is not None:
        scores = scores * row_factors[:, None]
    return scores if col_factors is None else scores * col_factors


def prune_rows(
    weight: Tensor,
    row_factors: Tensor | None,
    col_factors: Tensor | None,
    counts: Tensor,
    *,
    ties_to_higher: bool = False,
    with_mask: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """`weight` with the lowest scores |W|·u·v of every row zeroed, and which these are.

    Args:
        weight: W (rows, cols).
        row_factors: u (rows,) float32, or None for 1.
        col_factors: v (cols,) float32, or None for 1.
        counts: zeros of each row: (rows,) int64.
        ties_to_higher: among equal scores the higher columns go first, not the lower ones.
        with_mask: whether the mask is wanted.

    Returns:
        The pruned weight, and the mask (rows, cols), True = pruned, or None.
    """
    if has_kernel(weight):
        from neuroal.kernels import selection_triton

        return selection_triton.prune_rows(
            weight, row_factors, col_factors, counts,
            ties_to_higher=ties_to_higher, with_mask=with_mask,
        )  # fmt: skip
    scores = scores_of(weight, row_factors, col_factors)
    mask = sorted_lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)
    return zeroed(weight, mask), mask


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zeroed(weight: Tensor, mask: Tensor) -> Tensor:
    """A copy of `weight` that is +0 wherever `mask` is True.

    Bit operations, because on a CPU `masked_fill` is not vectorised and takes as long as the sort.
    """
    kind = _INTEGERS[weight.element_size()]
    kept = mask.to(kind).sub_(1)  # pruned: no bit set; kept: all
    return kept.bitwise_and_(weight.view(kind)).view(weight.dtype)
