"""Results that each linear gives by itself, computed by several devices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroal.models.adapter import DecoderModel, PrunableLinear


class ByLinear:
    """Divides the linears of a model over the devices that work together."""

    def __init__(self, decoder: DecoderModel) -> None:
        self._decoder = decoder
        self._owners = decoder.peers.owners([linear.numel for linear in decoder])

    def counts(
        self,
        function: Callable[[PrunableLinear], Tensor],
        length: Callable[[PrunableLinear], int],
    ) -> dict[str, Tensor]:
        """Return `function` of every linear by key, each computed by one device.

        Args:
            function: returns a vector of int64 for a linear whose block is present.
            length: length of this vector.
        """
        peers, owners = self._decoder.peers, iter(self._owners)
        lengths = {linear.key: length(linear) for linear in self._decoder}
        flat = torch.zeros(sum(lengths.values()), dtype=torch.int64, device=self._decoder.device)
        parts = iter(flat.split(list(lengths.values())))
        for _, linears in self._decoder.walk():
            for linear in linears:
                part = next(parts)
                if next(owners) == peers.rank:
                    part.copy_(function(linear))
        (total,) = peers.sums([flat])
        return dict(zip(lengths, total.split(list(lengths.values())), strict=True))
