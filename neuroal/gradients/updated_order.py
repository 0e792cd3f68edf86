"""The order of the weights for a pruner that updates those that remain, at the current zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroal.execution.pruned_walk import PrunedWalk, Statistics
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.weight_order import Counts, WeightOrder, ranks_of
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.kernels.selection import scores_of
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import Pruner
from neuroal.pruners.faults import naming
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.tracking.progress import Progress


class UpdatedOrder(WeightOrder):
    """The ranks and the values of weights as a pruner that updates weights leaves them.

    `update` prunes the model to given zeros per row. The weights that it prunes get the first ranks
    of their row, by Wanda's score of their dense values, which they regain if the row loses fewer
    weights. The others follow by Wanda's score of their updated values. Before the first `update`,
    order and values are those of the dense weights.
    """

    def __init__(self, decoder: DecoderModel, pruner: Pruner) -> None:
        super().__init__(decoder, pruner)
        self._updating = pruner
        self._updated: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, runner: BlockRunner, progress: Progress, counts: Counts) -> None:
        def prune_block(
            linears: Sequence[PrunableLinear], statistics: Statistics
        ) -> dict[str, Tensor]:
            peers, weights = self._decoder.peers, dict[str, Tensor]()
            owners = peers.owners([linear.numel for linear in linears])
            own = {
                linear.key: self._pruned(linear, statistics.get(linear.key), counts[linear.key])
                for linear, owner in zip(linears, owners, strict=True)
                if owner == peers.rank
            }
            peers.meet()
            for linear, owner in zip(linears, owners, strict=True):
                key, weight = linear.key, linear.weight
                weights[key], mask = own[key] if owner == peers.rank else _empty(weight)
                for part in (weights[key], mask):
                    peers.receive(part, owner)
                self._rank(linear, weights[key], mask, statistics.get(key))
            return weights

        needs = self._updating.needs | {Need.NORM}
        walk = PrunedWalk(runner, prune_block, dense_needs=needs, last_output=False)
        with progress.stage("prune and rank", len(self._decoder), "block") as step:
            for _ in walk:
                step.advance(1)

    def values(self, linear: PrunableLinear) -> Tensor:
        updated = self._updated.get(linear.key)
        return linear.weight if updated is None else updated.to(linear.weight.device)

    def _pruned(
        self, linear: PrunableLinear, statistics: InputStatistics | None, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the updated weight and the mask of `linear`, pruned by `counts`."""
        budget = LinearBudget(counts, counts / linear.cols, Rules.EXACT)
        with naming(linear.key):
            pruned = self._updating.prune(linear.weight, statistics, budget)
        return pruned.weight, pruned.mask

    def _rank(
        self,
        linear: PrunableLinear,
        updated: Tensor,
        mask: Tensor,
        statistics: InputStatistics | None,
    ) -> None:
        """Store the ranks and the values of `linear`, pruned to `updated` by `mask`."""
        norm = None if statistics is None else statistics.norm
        dense, remaining = (scores_of(weight, None, norm) for weight in (linear.weight, updated))
        # The zeros of the mask are the lowest finite scores here, and all of the lowest there.
        pruned = ranks_of(dense.masked_fill_(~mask, torch.inf))
        others = ranks_of(remaining.masked_fill_(mask, -1))
        self._ranks[linear.key] = torch.where(mask, pruned, others)
        values = torch.where(mask, linear.weight, updated)
        offloads = self._decoder.placement.offloads
        self._updated[linear.key] = values.cpu() if offloads else values


def _empty(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return memory for an updated weight and its mask, which another device sends."""
    return torch.empty_like(weight), torch.empty_like(weight, dtype=torch.bool)
