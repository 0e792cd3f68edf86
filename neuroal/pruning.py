"""Prune a model by a plan: statistics and masks, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import PrunedWeight, Pruner
from neuroal.pruners.budget import Allotment
from neuroal.refine.base import Refine
from neuroal.statistics import InputStatistics
from neuroal.tracking import Progress


@dataclass(frozen=True, eq=False)
class Pruned:
    """What was done to a model.

    Attributes:
        masks: of each linear, by key: (rows, cols) bool on the CPU, True = pruned.
    """

    masks: Mapping[str, Tensor]

    @property
    def sparsity(self) -> float:
        """Share of pruned entries over all prunable weights."""
        zeros = sum(int(mask.sum()) for mask in self.masks.values())
        return zeros / sum(mask.numel() for mask in self.masks.values())


def prune_model(
    subject: DecoderModel,
    pruner: Pruner,
    allotments: Mapping[str, Allotment],
    tokens: Tensor,
    batch: int,
    progress: Progress,
    refine: Refine | None = None,
) -> Pruned:
    """Prune `subject` in place.

    Over the blocks in order: a dense run on inputs that come from the pruned blocks before it
    gives the statistics, these the masks, and a sparse run the next block's inputs. A pruner that
    needs no statistics runs nothing.

    Args:
        subject: the model.
        pruner: makes the masks.
        allotments: number of zeros of every row, by linear.
        tokens: pruning windows (windows, seqlen); unused if the pruner needs no statistics.
        batch: windows in one forward pass.
        progress: told of every block.
        refine: changes the masks that the pruner starts with; kept weights stay as they are.

    Raises:
        UserError: a weight is NaN or infinite (names the linear).
    """
    check_finite(subject)
    needs = pruner.needs | (refine.needs if refine else frozenset())
    runner = BlockRunner.capture(subject, tokens, batch) if needs else None
    hidden = runner.embedded if runner else []
    masks: dict[str, Tensor] = {}
    with progress.stage("prune", len(subject), "block") as step:
        for index, linears in enumerate(subject.linears):
            statistics: Mapping[str, InputStatistics] = {}
            if runner:
                _, statistics = runner.measure(index, hidden, needs, outputs=False)
            for linear in linears:
                weight, found = linear.module.weight.data, statistics.get(linear.key)
                if refine is None:
                    pruned = pruner.prune(weight, found, allotments[linear.key])
                else:
                    mask = pruner.initial_mask(weight, found, allotments[linear.key])
                    if found is not None and refine.applies_to(subject, linear):
                        mask = refine.refine(weight, mask, found, allotments[linear.key].rules)
                    pruned = PrunedWeight(weight.masked_fill(mask, 0), mask)
                _apply(linear, pruned)
                masks[linear.key] = pruned.mask.cpu()
            if runner and index < len(subject) - 1:
                hidden = runner.run(index, hidden)
            step.advance(1)
    return Pruned(masks)


def _apply(linear: PrunableLinear, pruned: PrunedWeight) -> None:
    if not bool(torch.isfinite(pruned.weight).all()):
        raise UserError(f"pruner: the updated weight of '{linear.key}' is NaN or infinite")
    linear.module.weight.data.copy_(pruned.weight)


def check_finite(subject: DecoderModel) -> None:
    """Raise `UserError` if a prunable weight is NaN or infinite."""
    for linear in subject:
        if not bool(torch.isfinite(linear.module.weight).all()):
            raise UserError(f"model: the weight of '{linear.key}' has NaN or infinite entries")
