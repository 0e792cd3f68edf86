"""Results that each linear gives by itself, computed by several devices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroal.models.adapter import DecoderModel, PrunableLinear


def by_linear(
    decoder: DecoderModel,
    function: Callable[[PrunableLinear], Tensor],
    shape: Callable[[PrunableLinear], tuple[int, ...]],
    dtype: torch.dtype = torch.int64,
) -> dict[str, Tensor]:
    """Return `function` of every linear of `decoder` by key, on its device.

    If several devices work together, each computes the results of a part of the linears, and all
    get all results.

    Args:
        decoder: the model.
        function: function of a linear whose block is present.
        shape: shape of its result.
        dtype: dtype of its result.
    """
    peers, results = decoder.peers, dict[str, Tensor]()
    owners = iter(peers.owners([linear.numel for linear in decoder]))
    zero = torch.zeros((), dtype=dtype, device=decoder.device)
    for _, linears in decoder.walk():
        for linear in linears:
            own = next(owners) == peers.rank
            results[linear.key] = function(linear) if own else zero.expand(shape(linear))
    return dict(zip(results, peers.sums(list(results.values())), strict=True))
