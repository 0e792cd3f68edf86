"""Select the weights with the lowest scores of each row, with a fixed rule for ties.

This PyTorch implementation defines the results of the GPU kernels in `selection_triton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Maps the size of an entry in bytes to the integer dtype of that size."""
WIDEST = 65536
"""Maximum number of columns that a program of the GPU kernel holds in registers."""
NARROWEST = 32
"""Minimum number of columns for the GPU kernel; N:M groups, for example, are too narrow."""


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Return whether Triton is installed, without importing it."""
    return find_spec("triton") is not None


def has_kernel(values: Tensor) -> bool:
    """Return whether the Triton kernels support `values` (rows, cols), without importing Triton."""
    return (
        values.is_cuda
        and values.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and NARROWEST <= values.shape[1] <= WIDEST
        and len(values) > 0
        and has_triton()
    )


def lowest_per_row(scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False) -> Tensor:
    """Compute the mask (rows, cols), True = pruned, of the lowest scores of each row.

    Args:
        scores: (rows, cols), without NaN.
        counts: number of entries to prune in each row, from 0 to cols: (rows,) int64.
        ties_to_higher: among equal scores, prune the higher columns first instead of the lower.
    """
    if has_kernel(scores):
        from neuroal.kernels import selection_triton

        return selection_triton.lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)
    return sorted_lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)


@dataclass(frozen=True)
class Groups:
    """Groups of consecutive columns with a fixed number of zeros in each row.

    Attributes:
        of: columns of a group.
        zeros: zeros of a group.
        zeros_of_last: zeros of the last group, if it has fewer columns.
    """

    of: int
    zeros: int
    zeros_of_last: int

    def lowest(self, scores: Tensor) -> Tensor:
        """Return the mask of the lowest `scores` (rows, columns) of one group.

        Of equal scores, the lower column comes first.
        """
        rows, columns = scores.shape
        zeros = self.zeros if columns == self.of else self.zeros_of_last
        return lowest_per_row(scores, torch.full((rows,), zeros))


def sorted_lowest_per_row(
    scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False
) -> Tensor:
    """Compute `lowest_per_row` by sorting, on any device and for any dtype."""
    counts = counts.to(scores.device)
    cols = scores.shape[1]
    ordered = _sorted_rows(scores)
    position = (counts - 1).clamp(min=0)[:, None]
    threshold = ordered.gather(1, position)
    # Ties matter only if the next larger score equals the threshold.
    following = ordered.gather(1, counts.clamp(max=cols - 1)[:, None])
    mask = scores <= threshold
    mask[counts == 0] = False
    tied = ((following == threshold).squeeze(1) & (counts > 0) & (counts < cols)).nonzero()[:, 0]
    if len(tied):
        mask[tied] = _break_ties(scores[tied], threshold[tied], counts[tied], ties_to_higher)
    return mask


def _sorted_rows(scores: Tensor) -> Tensor:
    """Sort each row in ascending order; on a CPU with NumPy, which is several times faster."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values


def _break_ties(scores: Tensor, threshold: Tensor, counts: Tensor, to_higher: bool) -> Tensor:
    below, equal = scores < threshold, scores == threshold
    missing = (counts - below.sum(1))[:, None]
    running = equal.flip(1).cumsum(1).flip(1) if to_higher else equal.cumsum(1)
    return below | (equal & (running <= missing))


def scores_of(weight: Tensor, row_factors: Tensor | None, col_factors: Tensor | None) -> Tensor:
    """Compute the scores |W|·u·v in float32, multiplied in this order; see `prune_rows`."""
    scores = weight.float().abs()
    if row_factors is not None:
        scores = scores * row_factors[:, None]
    if col_factors is None or col_factors.dim() == 1:
        return scores if col_factors is None else scores * col_factors
    by_group: Tensor = scores.unflatten(0, (len(col_factors), -1))
    return (by_group * col_factors[:, None]).flatten(0, 1)


def prune_rows(
    weight: Tensor,
    row_factors: Tensor | None,
    col_factors: Tensor | None,
    counts: Tensor,
    *,
    ties_to_higher: bool = False,
    with_mask: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Zero the weights with the lowest scores |W|·u·v of each row.

    Args:
        weight: W (rows, cols).
        row_factors: u (rows,) float32, or None for 1.
        col_factors: v (cols,) float32, or None for 1; (groups, cols): one for each of so many
            groups of consecutive rows of equal size.
        counts: number of entries to prune in each row, from 0 to cols: (rows,) int64.
        ties_to_higher: among equal scores, prune the higher columns first instead of the lower.
        with_mask: return the mask; without it, the mask may be None.

    Returns:
        The pruned copy of `weight`, and the mask (rows, cols), True = pruned, or None.
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


def zeroed(weight: Tensor, mask: Tensor) -> Tensor:
    """Return a copy of `weight` (any shape) that is +0 wherever `mask` is True."""
    # On a CPU, `masked_fill` is not vectorised and takes as long as the sort.
    integer = INTEGERS[weight.element_size()]
    bits = mask.to(integer).sub_(1)  # True becomes 0 (no bit set), False becomes -1 (all bits set)
    return bits.bitwise_and_(weight.view(integer)).view(weight.dtype)


def largest(values: Tensor) -> Tensor:
    """Return the largest magnitude of `values`, NaN if one is: () on their device."""
    low, high = values.aminmax()
    return torch.maximum(-low, high)


def largest_of_each(values: Tensor) -> Tensor:
    """Return `largest` of every entry of `values` along dimension 0: (n, …) → (n,)."""
    low, high = values.flatten(1).aminmax(dim=1)
    return torch.maximum(-low, high)
