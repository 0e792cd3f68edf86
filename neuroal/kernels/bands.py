"""First- and second-order costs of the weights around the pruning threshold of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroal.kernels.selection import has_triton


@torch.no_grad()
def band_entries(values: Tensor, ranks: Tensor, counts: Tensor, width: int) -> Tensor:
    """Return the entries of `values` that `band_costs` reads, which devices need to exchange.

    Args:
        values: (rows, cols).
        ranks: rank of each entry in its row: (rows, cols) integers.
        counts: k_r of each row: (rows,) integers.
        width: half of the width of the band, in ranks.

    Returns:
        (rows, 2·width): the entries of each row from the first rank of its band on, and 0 behind
        its last rank. If a row has no more columns than that, `values`.
    """
    if 2 * width >= values.shape[1]:
        return values
    low, high = _bounds(ranks, counts, width)
    if values.is_cuda and has_triton():
        from neuroal.kernels import bands_triton

        return bands_triton.band_entries(values, ranks, low, high, 2 * width)
    inside = (ranks >= low[:, None]) & (ranks < high[:, None])
    place = (ranks.long() - low.long()[:, None]).masked_fill_(~inside, 2 * width)
    entries = values.new_zeros(len(values), 2 * width + 1).scatter_(1, place, values)
    return entries[:, :-1].contiguous()


@torch.no_grad()
def band_costs(
    gradient: Tensor,
    weight: Tensor,
    ranks: Tensor,
    counts: Tensor,
    width: int,
    scale: float = 1.0,
    curvature: float = 0.0,
) -> Tensor:
    """Compute the mean cost of the weights in a band of ranks around each row's threshold.

    The cost of a weight is g + curvature·g² with g = −G·W/scale. To first order, g is the increase
    of the objective when the weight is zeroed; for a pruned weight, it is the increase that zeroing
    has caused. The band of row r covers the ranks [k_r − width, k_r + width).

    Args:
        gradient: G, gradient of the objective times `scale`: (rows, cols), or its `band_entries`.
        weight: W, dense weight: (rows, cols).
        ranks: rank of each weight in its row, in pruning order: (rows, cols) integers.
        counts: k_r, number of zeros of each row: (rows,) integers.
        width: half of the width of the band, in ranks.
        scale: factor by which the objective was multiplied before differentiation.
        curvature: coefficient of the second-order term.

    Returns:
        Mean cost of each row: (rows,) float32.
    """
    low, high = _bounds(ranks, counts, width)
    if gradient.is_cuda and has_triton():
        from neuroal.kernels.bands_triton import band_sums  # a CPU needs no Triton

        sums = band_sums(gradient, weight, ranks, low, high, scale, curvature)
    else:
        sums = _band_sums(gradient, weight, ranks, low, high, scale, curvature)
    return sums / (high - low)


def _bounds(ranks: Tensor, counts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the first rank of the band of every row, and the first one behind it: (rows,)."""
    low = (counts - width).clamp(min=0).to(ranks.device, ranks.dtype)
    high = (counts + width).clamp(max=ranks.shape[1]).to(ranks.device, ranks.dtype)
    return low, high


def _band_sums(
    gradient: Tensor,
    weight: Tensor,
    ranks: Tensor,
    low: Tensor,
    high: Tensor,
    scale: float,
    curvature: float,
) -> Tensor:
    if gradient.shape != ranks.shape:  # only the entries of the band
        place = (ranks.long() - low.long()[:, None]).clamp_(0, gradient.shape[1] - 1)
        gradient = gradient.gather(1, place)
    gains = gradient.float() * weight.float() * (-1 / scale)
    if curvature:
        gains = gains + curvature * gains.square()
    outside = (ranks < low[:, None]) | (ranks >= high[:, None])
    return gains.masked_fill_(outside, 0).sum(1)


@torch.no_grad()
def zeroed_below_rank(weight: Tensor, ranks: Tensor, counts: Tensor) -> Tensor:
    """Return a copy of `weight` with zeros at the lowest ranks of each row.

    Args:
        weight: (rows, cols).
        ranks: rank of each weight in its row: (rows, cols) integers.
        counts: number of zeros of each row: (rows,) integers.
    """
    counts = counts.to(ranks.device, ranks.dtype)
    if weight.is_cuda and weight.is_contiguous() and has_triton():
        from neuroal.kernels import bands_triton

        return bands_triton.zeroed_below_rank(weight, ranks, counts)
    return weight.masked_fill(ranks < counts[:, None], 0)
