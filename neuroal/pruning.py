"""Prune a model by a plan: statistics and masks, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.fitting import Batch
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import PrunedWeight, Pruner
from neuroal.pruners.budget import Allotment
from neuroal.pruners.packed import PackedMasks
from neuroal.readback import Readback
from neuroal.refine.base import Refine
from neuroal.replay import Replay
from neuroal.statistics import InputStatistics
from neuroal.tracking import Progress


@dataclass(frozen=True, eq=False)
class Pruned:
    """What was done to a model.

    Attributes:
        masks: of each linear, by key: (rows, cols) bool on the CPU, True = pruned.
        batch: windows in one forward pass, and which numbers of them did not fit; None: the masks
            are not new.
    """

    masks: PackedMasks
    batch: Batch | None = None

    @property
    def sparsity(self) -> float:
        """Share of pruned entries over all prunable weights."""
        return self.masks.sparsity


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
        batch: windows in one forward pass; fewer, should memory not suffice.
        progress: told of every block.
        refine: changes the masks that the pruner starts with; kept weights stay as they are.

    Raises:
        UserError: a weight is NaN or infinite (names the linear).
    """
    check_finite(subject)
    needs = pruner.needs | (refine.needs if refine else frozenset())
    fitting = Batch("prune", batch, divides=True)
    replay = Replay(subject, tokens, fitting) if needs else None
    masks = PackedMasks()
    with progress.stage("prune", len(subject), "block") as step:
        for index, linears in subject.walk(writes=True):
            statistics: Mapping[str, InputStatistics] = {}
            if replay:
                statistics = replay.measure(index, needs)
            for linear in linears:
                weight, found = linear.module.weight.data, statistics.get(linear.key)
                if refine is None:
                    pruned = pruner.prune(weight, found, allotments[linear.key])
                else:
                    mask = pruner.initial_mask(weight, found, allotments[linear.key])
                    if found is not None and refine.applies_to(subject, linear):
                        mask = refine.refine(weight, mask, found, allotments[linear.key].rules)
                    pruned = PrunedWeight(weight.masked_fill(mask, 0), mask)
                if pruner.updates_weights:
                    _check_updated(linear, pruned)
                linear.module.weight.data.copy_(pruned.weight)
                masks.add(linear.key, pruned.mask)
            if replay and index < len(subject) - 1:
                replay.advance(index)
            step.advance(1)
    return Pruned(masks, fitting)


def _check_updated(linear: PrunableLinear, pruned: PrunedWeight) -> None:
    if not bool(torch.isfinite(pruned.weight).all()):
        raise UserError(f"pruner: the updated weight of '{linear.key}' is NaN or infinite")


def check_finite(subject: DecoderModel) -> None:
    """Raise `UserError` if a prunable weight is NaN or infinite."""
    found = [
        (linear.key, Readback(torch.isfinite(linear.module.weight).all()))
        for _, linears in subject.walk()
        for linear in linears
    ]
    for key, finite in found:
        if not finite.get():
            raise UserError(f"model: the weight of '{key}' has NaN or infinite entries")
