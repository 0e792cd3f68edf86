"""Prune a model block by block: collect statistics, compute masks, apply them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.replay import Replay
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import MaskRefiner, PrunedWeight, Pruner
from neuroal.pruners.packed import PackedMasks
from neuroal.sparsity.budget import LinearBudget
from neuroal.tracking.progress import Progress


@dataclass(frozen=True, eq=False)
class RefinedPruner:
    """A pruner and an optional refiner, which starts from the pruner's initial masks."""

    pruner: Pruner
    refiner: MaskRefiner | None = None

    @property
    def needs(self) -> frozenset[Need]:
        return self.pruner.needs | (self.refiner.needs if self.refiner else frozenset())

    def prune(
        self,
        decoder: DecoderModel,
        linear: PrunableLinear,
        statistics: InputStatistics | None,
        budget: LinearBudget,
    ) -> PrunedWeight:
        """Return the pruned weight of `linear`; the linear itself does not change."""
        if self.refiner is None:
            pruned = self.pruner.prune(linear.weight, statistics, budget)
        else:
            mask = self.pruner.initial_mask(linear.weight, statistics, budget)
            if statistics is not None and self.refiner.applies_to(decoder, linear):
                mask = self.refiner.refine(linear.weight, mask, statistics, budget.rules)
            pruned = PrunedWeight(linear.weight.masked_fill(mask, 0), mask)
        if self.pruner.updates_weights and not bool(torch.isfinite(pruned.weight).all()):
            raise UserError(
                f"pruner={self.pruner.name}: the updated weight of '{linear.key}' is NaN or "
                "infinite; try model.dtype=bfloat16 or float32"
            )
        return pruned


def prune_model(
    decoder: DecoderModel,
    pruner: Pruner | RefinedPruner,
    budgets: Mapping[str, LinearBudget],
    tokens: Tensor,
    batch: AdaptiveBatch,
    progress: Progress,
) -> PackedMasks:
    """Prune `decoder` in place and return its masks.

    For each block in order: collect statistics of the dense block on inputs that come from the
    pruned blocks before it, prune its linears, and run the pruned block to get the inputs of the
    next one. A pruner without `needs` runs no block.

    Args:
        decoder: the model; its weights must be finite (`check_finite`).
        pruner: computes the masks; a `RefinedPruner` also refines them.
        budgets: zeros of every row, by linear.
        tokens: calibration windows (windows, seqlen); unused without `needs`.
        batch: windows in one forward pass, with ``divides=True``.
        progress: receives progress updates.

    Returns:
        Masks by linear: (rows, cols) bool on the CPU, True = pruned.

    Raises:
        UserError: an updated weight is NaN or infinite.
    """
    method = pruner if isinstance(pruner, RefinedPruner) else RefinedPruner(pruner)
    replay = Replay(decoder, tokens, batch) if method.needs else None
    masks = PackedMasks()
    with progress.stage("prune", len(decoder), "block") as step:
        for index, linears in decoder.walk(writes=True):
            statistics = replay.measure(index, method.needs) if replay else {}
            for linear in linears:
                inputs, budget = statistics.get(linear.key), budgets[linear.key]
                pruned = method.prune(decoder, linear, inputs, budget)
                linear.weight = pruned.weight
                masks.add(linear.key, pruned.mask)
            if replay and index < len(decoder) - 1:
                replay.advance(index)
            step.advance(1)
    return masks


def apply_masks(decoder: DecoderModel, masks: Mapping[str, Tensor]) -> None:
    """Set the weights of `decoder` to zero where the mask of their linear is True."""
    for _, linears in decoder.walk(writes=True):
        for linear in linears:
            linear.weight.masked_fill_(masks[linear.key].to(linear.weight.device), 0)
