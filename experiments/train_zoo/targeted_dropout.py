"""Targeted dropout: train a network to depend less on its small weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class TargetedDropout:
    """Drop, in one training step, some of the weights that magnitude pruning would drop.

    Candidates are the `share` of weights with the least magnitude in each row. Each candidate is 0
    in this step with probability `rate`; all other weights are unchanged, nothing is scaled. The
    dropped weights are a function of the weights, the seed and the step.

    Source: Gomez et al., 2019 (arXiv 1905.13678), section 3, which works on columns of the
    transposed matrix.

    Args:
        weights: matrices (outputs, inputs).
        share: γ, share of a row that may be dropped.
        rate: α, probability that a candidate is dropped.
        seed: seed of the draws.
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
        """Drop weights inside the context; restore them afterwards, with masked gradients."""
        weights = [weight for group in self.groups.values() for weight in group]
        if not weights or not self.share * self.rate:
            yield
            return
        with torch.no_grad():
            masks = self._masks(step)
            whole = [weight.clone() for weight in weights]
            torch._foreach_mul_(weights, masks)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, whole)
        for weight, mask in zip(weights, masks, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    def _masks(self, step: int) -> list[Tensor]:
        """Return, for each weight, 0 where it is dropped in this step and 1 elsewhere."""
        device = next(iter(self.groups.values()))[0].device
        random = torch.Generator(device).manual_seed(self.seed * 1_000_003 + step)
        masks: list[Tensor] = []
        for columns, group in self.groups.items():
            sizes = torch.cat([weight.abs() for weight in group])  # one selection for all rows
            count = round(self.share * columns)
            limit = sizes.kthvalue(count, 1, keepdim=True).values if count else sizes.new_zeros(1)
            drawn = torch.rand(sizes.shape, generator=random, device=device) < self.rate
            stays = ~((sizes <= limit) & drawn)
            masks += stays.to(group[0].dtype).split([len(weight) for weight in group])
        return masks
