"""Zeros of every row for weights that are pruned in a given order, from their costs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BANDS = 256
"""Bands of neighbouring ranks in which the weights of a row are counted together."""
NEIGHBOURS = 5
"""Bands of a moving mean: 2 % of the row, since single costs say little about the ones after."""


def costs_by_band(costs: Tensor, ranks: Tensor) -> Tensor:
    """Return the mean cost of the weights of each band of ranks, (rows, bands) float32.

    It is a moving mean over bands, and never lower than in a band that is pruned earlier: whoever
    prunes a weight prunes those before it too.

    Args:
        costs: cost of every weight, (rows, cols).
        ranks: rank of every weight in its row, (rows, cols); rank 0 is pruned first.
    """
    edges = _edges(costs.shape[1]).to(costs.device)
    ordered = torch.empty_like(costs).scatter_(1, ranks.long(), costs)
    sums = nn.functional.pad(ordered.cumsum(1, dtype=torch.float64), (1, 0))[:, edges].diff(dim=1)
    means = (sums / edges.diff())[:, None].float()
    smooth = nn.functional.avg_pool1d(
        means, NEIGHBOURS, 1, NEIGHBOURS // 2, count_include_pad=False
    )[:, 0]
    return smooth.cummax(1).values


def zeros_by_cost(
    costs: Mapping[str, Tensor], cols: Mapping[str, int], zeros: int
) -> dict[str, Tensor]:
    """Return the zeros of every row, (rows,) int64, by linear: the cheapest bands of all rows.

    The sum is at least `zeros`, and less if the most expensive of the bands were left out.

    Args:
        costs: results of `costs_by_band`, by linear.
        cols: columns of each linear.
        zeros: zeros of the model.
    """
    widths = {key: _edges(cols[key]).diff().to(cost.device) for key, cost in costs.items()}

    def counts(limit: Tensor) -> dict[str, Tensor]:
        return {key: ((cost <= limit) * widths[key]).sum(1) for key, cost in costs.items()}

    low, high = -1, int(torch.tensor(torch.finfo(torch.float32).max).view(torch.int32))
    while high - low > 1:  # the bits of positive floats, read as integers, have their order
        middle = (low + high) // 2
        if int(torch.cat(list(counts(_float(middle)).values())).sum()) < zeros:
            low = middle
        else:
            high = middle
    return counts(_float(high))


def _float(bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32)


def _edges(cols: int) -> Tensor:
    """Return the first rank of every band, and the number of ranks: (bands + 1,) int64."""
    bands = min(BANDS, cols)
    return torch.arange(bands + 1) * cols // bands
