"""What a gradient says about the weights of every row that are about to go or to come back."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Mean of g + curvature·g², g = −G·W/scale, over the ranks [k_r − width, k_r + width) of a row.

    g is what an objective gains, to first order, if a weight is zeroed; for a weight that is zeroed
    already, what it has lost by its absence.

    Args:
        gradient: G, of the `scale`-fold objective: (rows, cols).
        weight: W, dense: (rows, cols).
        ranks: of every weight in its row: (rows, cols) integers.
        counts: k_r (rows,) integers.
        width: half of the band.
        scale: see above.
        curvature: weight of the second-order term.

    Returns:
        (rows,) float32.
    """
    low = (counts - width).clamp(min=0).to(ranks.device, ranks.dtype)
    high = (counts + width).clamp(max=ranks.shape[1]).to(ranks.device, ranks.dtype)
    if gradient.is_cuda:
        from neuroal.kernels.bands_triton import band_sums  # a CPU needs no Triton

        sums = band_sums(gradient, weight, ranks, low, high, scale, curvature)
    else:
        sums = _band_sums(gradient, weight, ranks, low, high, scale, curvature)
    return sums / (high - low)


def _band_sums(
    gradient: Tensor,
    weight: Tensor,
    ranks: Tensor,
    low: Tensor,
    high: Tensor,
    scale: float,
    curvature: float,
) -> Tensor:
    """The sums of `band_costs` over the ranks [low, high): (rows,) float32."""
    gains = gradient.float() * weight.float() * (-1 / scale)
    if curvature:
        gains = gains + curvature * gains.square()
    outside = (ranks < low[:, None]) | (ranks >= high[:, None])
    return gains.masked_fill_(outside, 0).sum(1)
