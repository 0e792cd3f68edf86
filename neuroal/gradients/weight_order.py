"""The order in which the weights of every row are pruned, fixed before zeros are allocated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neuroal.execution.pruned_walk import PrunedWalk, Statistics
from neuroal.execution.runner import BlockRunner
from neuroal.kernels.bands import band_costs, band_entries, zeroed_below_rank
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.parallel.peers import Share
from neuroal.pruners.base import Pruner, ScorePruner
from neuroal.pruners.faults import faults_of, naming
from neuroal.pruners.wanda import Wanda
from neuroal.tracking.progress import Progress

Counts = Mapping[str, Tensor]
"""Zeros of every row, (rows,) int64, by linear."""


class WeightOrder:
    """The rank of every weight in its row by a pruner's scores; rank 0 is pruned first.

    Equal scores are ranked by column. Given the ranks, the mask of any allocation is one
    comparison, without sorting again. A pruner without scores (SparseGPT) uses Wanda's.
    """

    def __init__(self, decoder: DecoderModel, pruner: Pruner) -> None:
        self._decoder = decoder
        self._pruner = pruner if isinstance(pruner, ScorePruner) else Wanda()
        self._ranks: dict[str, Tensor] = {}

    @torch.no_grad()
    def compute(
        self, runner: BlockRunner, progress: Progress, counts: Counts | None = None
    ) -> list[Tensor]:
        """Rank all weights by statistics on the windows of `runner`, and return the hidden states.

        With `counts`, the statistics are collected behind blocks pruned by these counts, as when
        the model is finally pruned; without, behind dense blocks, each of which runs once. The
        hidden states leave the last block, one tensor per batch, for the windows of this device.
        """

        def prune(linears: Sequence[PrunableLinear], statistics: Statistics) -> dict[str, Tensor]:
            assert counts is not None
            self._rank_block(linears, statistics)
            return self.masked(linears, counts)

        needs = self._pruner.needs
        if counts is None:
            walk = PrunedWalk(runner, _dense, sparse_needs=needs)
        else:
            walk = PrunedWalk(runner, prune, dense_needs=needs)
        with progress.stage("rank weights", len(self._decoder), "block") as step:
            for block in walk:
                if counts is None:
                    self._rank_block(block.linears, block.sparse)
                step.advance(1)
        return walk.hidden

    def _rank_block(self, linears: Sequence[PrunableLinear], statistics: Statistics) -> None:
        """Rank the weights of a block; each device ranks its rows."""
        peers = self._decoder.peers
        peers.meet()
        for linear in linears:
            with naming(linear.key), faults_of(self._pruner, linear.weight):
                scores = self._pruner.checked_scores(linear.weight, statistics.get(linear.key))
            ranks = ranks_of(scores[peers.rows(linear.rows)])
            (self._ranks[linear.key],) = peers.joined_rows([ranks], [linear.rows])

    def update(self, runner: BlockRunner, progress: Progress, counts: Counts) -> None:
        """Rank all weights again, as they are pruned by `counts`."""
        self.compute(runner, progress, counts)

    def ranks(self, linear: PrunableLinear) -> Tensor:
        """Return the rank of every weight of `linear` in its row, (rows, cols)."""
        return self._ranks[linear.key]

    def values(self, linear: PrunableLinear) -> Tensor:
        """Return the values of the weights of `linear` before some of them are zeroed."""
        return linear.weight

    def masked(self, linears: Sequence[PrunableLinear], counts: Counts) -> dict[str, Tensor]:
        """Return the weights of `linears` with the lowest ranks of each row zeroed, by key."""
        return {
            linear.key: zeroed_below_rank(
                self.values(linear), self._ranks[linear.key], counts[linear.key]
            )
            for linear in linears
        }

    def summed(
        self,
        gradients: Mapping[str, Tensor],
        counts: Counts,
        width_of: Callable[[int], int],
        share: Share,
    ) -> dict[str, Tensor]:
        """Return the sums of all devices' gradients at weights, by key, for `costs`.

        If several devices work together, these are the sums of this device's rows, and only of the
        entries in the band, since an exchange of all entries takes longer. `width_of` returns the
        half-width of the band from the number of columns.
        """
        if share.whole:
            return dict(gradients)
        entries = [
            band_entries(gradient, self._ranks[key], counts[key], width_of(gradient.shape[1]))
            for key, gradient in gradients.items()
        ]
        self._decoder.peers.meet()
        return dict(zip(gradients, share.row_sums(entries), strict=True))

    def costs(
        self,
        linear: PrunableLinear,
        gradient: Tensor,
        counts: Tensor,
        width: int,
        scale: float = 1.0,
        curvature: float = 0.0,
    ) -> Tensor:
        """Return the marginal cost of every row of `linear`, as `band_costs` defines it.

        If several devices work together, `gradient` is that of `summed`, and the costs are those of
        this device's rows (`Peers.rows`); `joined` gives those of all rows.
        """
        if not len(gradient):  # fewer rows than devices
            return torch.zeros(0, device=gradient.device)
        rows = self._decoder.peers.rows(linear.rows)
        ranks, weight = self._ranks[linear.key][rows], self.values(linear)[rows]
        return band_costs(gradient, weight, ranks, counts[rows], width, scale, curvature)

    def joined(self, costs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the costs of all rows, (rows,) by linear, from `costs` of this device's rows."""
        peers, rows = self._decoder.peers, {linear.key: linear.rows for linear in self._decoder}
        peers.meet()
        joined = peers.joined_rows(list(costs.values()), [rows[key] for key in costs])
        return dict(zip(costs, joined, strict=True))


def _dense(linears: Sequence[PrunableLinear], _: Statistics) -> dict[str, Tensor]:
    return {linear.key: linear.weight for linear in linears}


def ranks_of(scores: Tensor) -> Tensor:
    """Return the rank of every score in its row, ascending, with ties ranked by column.

    The ranks (rows, cols) are int16, or int32 for rows of at least 2¹⁵ columns.
    """
    rows, cols = scores.shape
    dtype = torch.int16 if cols < 2**15 else torch.int32
    order = scores.contiguous().sort(dim=1, stable=True).indices
    ranks = torch.arange(cols, device=scores.device, dtype=dtype).expand(rows, cols)
    return torch.empty_like(order, dtype=dtype).scatter_(1, order, ranks)
