"""The order in which every row gives up its weights, fixed before zeros are dealt out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, swapped_weights
from neuroal.kernels.bands import band_costs
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import Pruner, ScorePruner
from neuroal.pruners.wanda import Wanda
from neuroal.statistics import InputStatistics
from neuroal.tracking import Progress

Counts = Mapping[str, Tensor]
"""Zeros of every row (rows,) int64, by linear."""


class Ranks:
    """Rank of every weight in its row by a pruner's scores: 0 goes first, ties to lower columns.

    With ranks at hand, the mask of any allocation is one comparison and no more sorting.
    A pruner without scores (SparseGPT) is given Wanda's order.
    """

    def __init__(self, subject: DecoderModel, pruner: Pruner) -> None:
        self._subject = subject
        self._pruner = pruner if isinstance(pruner, ScorePruner) else Wanda()
        self._ranks: dict[str, Tensor] = {}

    @torch.no_grad()
    def measure(
        self, runner: BlockRunner, progress: Progress, counts: Counts | None = None
    ) -> list[Tensor]:
        """Rank all weights by statistics on the windows of `runner`.

        Args:
            runner: on the calibration windows.
            progress: told of every block.
            counts: None for the statistics of the dense model; else those of inputs that come
                through blocks pruned by these counts, as when the model is pruned in the end.

        Returns:
            The hidden states that leave the last block.
        """
        hidden = runner.embedded
        with progress.stage("rank weights", len(self._subject), "block") as step:
            for index, linears in self._subject.walk():
                statistics: Mapping[str, InputStatistics] = {}
                if self._pruner.needs:
                    _, statistics = runner.measure(index, hidden, self._pruner.needs, outputs=False)
                for linear in linears:
                    scores = self._pruner.scores(
                        linear.module.weight.data, statistics.get(linear.key)
                    )
                    self._ranks[linear.key] = ranks_of(scores)
                if counts is None:
                    hidden = runner.run(index, hidden)
                else:
                    with swapped_weights(linears, self.masked(linears, counts)):
                        hidden = runner.run(index, hidden)
                step.advance(1)
        return hidden

    def masked(self, linears: tuple[PrunableLinear, ...], counts: Counts) -> dict[str, Tensor]:
        """Weights with the lowest of each row zeroed, by key."""
        return {
            linear.key: linear.module.weight.data.masked_fill(
                self._ranks[linear.key] < _column(counts[linear.key], self._ranks[linear.key]), 0
            )
            for linear in linears
        }

    def costs(
        self,
        linear: PrunableLinear,
        gradient: Tensor,
        counts: Tensor,
        width: int,
        scale: float = 1.0,
        curvature: float = 0.0,
    ) -> Tensor:
        """Cost of one more zero in every row of `linear` (rows,): see `band_costs`."""
        weight = linear.module.weight.data
        return band_costs(
            gradient, weight, self._ranks[linear.key], counts, width, scale, curvature
        )


def _column(counts: Tensor, ranks: Tensor) -> Tensor:
    return counts.to(ranks.device, ranks.dtype)[:, None]


def ranks_of(scores: Tensor) -> Tensor:
    """Rank of every score in its row, ascending, ties to lower columns: (rows, cols) integers."""
    rows, cols = scores.shape
    kind = torch.int16 if cols < 2**15 else torch.int32
    order = scores.sort(dim=1, stable=True).indices
    places = torch.arange(cols, device=scores.device, dtype=kind).expand(rows, cols)
    return torch.empty_like(order, dtype=kind).scatter_(1, order, places)
