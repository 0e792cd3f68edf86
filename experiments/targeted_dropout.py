"""Targeted dropout: training that leaves the small weights of a network little to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class TargetedDropout:
    """Drops, in one training step, some of the weights that magnitude pruning would drop.

    Of each row the `share` of weights with the least magnitude are candidates; each candidate is
    0 in this step with probability `rate`, all other weights stay as they are (nothing is scaled).
    Gomez et al. 2019, arXiv 1905.13678, section 3 (there: of each column of the transposed
    matrix). What is dropped is a function of the weights, the seed and the step.

    Args:
        weights: matrices (outputs, inputs).
        share: γ, share of a row that may be dropped.
        rate: α, how often a candidate is.
        seed: of the draws.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], share: float, rate: float, seed: int
    ) -> None:
        self.share, self.rate, self.seed = share, rate, seed
        self.groups: dict[int, list[nn.Parameter]] = defaultdict(list)
        for weight in weights:
            self.groups[weight.shape[1]].append(weight)

    @contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Inside, the weights are thinned; afterwards they are whole, but not their gradients."""
        weights = [weight for group in self.groups.values() for weight in group]
        if not weights or not self.share * self.rate:
            yield
            return
        with torch.no_grad():
            kept = self._kept(step)
            whole = [weight.clone() for weight in weights]
            torch._foreach_mul_(weights, kept)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, whole)
        for weight, keep in zip(weights, kept, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(keep)

    def _kept(self, step: int) -> list[Tensor]:
        """1 where a weight stays in this step, 0 where it is dropped."""
        device = next(iter(self.groups.values()))[0].device
        random = torch.Generator(device).manual_seed(self.seed * 1_000_003 + step)
        kept: list[Tensor] = []
        for columns, group in self.groups.items():
            sizes = torch.cat([weight.abs() for weight in group])  # one selection for all rows
            count = round(self.share * columns)
            limit = sizes.kthvalue(count, 1, keepdim=True).values if count else sizes.new_zeros(1)
            drawn = torch.rand(sizes.shape, generator=random, device=device) < self.rate
            stays = ~((sizes <= limit) & drawn)
            kept += stays.to(group[0].dtype).split([len(weight) for weight in group])
        return kept
