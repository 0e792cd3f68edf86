"""Prune a model block by block: collect statistics, compute masks, apply them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.probe import probe_of
from neuroal.execution.replay import Replay
from neuroal.execution.routed import under_reached
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.kernels.selection import zeroed
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.parallel.peers import Peers
from neuroal.pruners.base import FactorPruner, MaskRefiner, PrunedWeight, Pruner
from neuroal.pruners.batches import Batch, batches, prune_together, scores_by_factors
from neuroal.pruners.checks import PruningChecks, check_mask, check_result, check_unwritten
from neuroal.pruners.faults import faults_of, is_of_package, naming
from neuroal.pruners.packed import PackedMasks
from neuroal.sparsity.budget import LinearBudget, on_device
from neuroal.tracking.progress import Progress


@dataclass(frozen=True, eq=False)
class RefinedPruner:
    """A pruner and an optional refiner, which starts from the pruner's initial masks."""

    pruner: Pruner
    refiner: MaskRefiner | None = None

    @property
    def needs(self) -> frozenset[Need]:
        return self.pruner.needs | (self.refiner.needs if self.refiner else frozenset())

    @property
    def accepts_any_input(self) -> bool:
        """Whether inputs that are not finite raise no error of the method itself."""
        factors_only = self.refiner is None and scores_by_factors(self.pruner)
        return factors_only and is_of_package(self.pruner)

    def batches(
        self, linears: Sequence[PrunableLinear], budgets: Mapping[str, LinearBudget]
    ) -> list[Batch]:
        """Return the linears of a block in batches that are pruned together."""
        if self.refiner is not None:
            return [(linear,) for linear in linears]
        return batches(linears, self.pruner, budgets)

    def prune(
        self,
        decoder: DecoderModel,
        linear: PrunableLinear,
        statistics: InputStatistics | None,
        budget: LinearBudget,
        target: Tensor | None = None,
    ) -> PrunedWeight:
        """Return the pruned weight of `linear`; the linear itself does not change.

        With a `target` (rows, cols), prune to this mask if the method can (`Pruner.prune_to`).

        Raises:
            MethodFault: the method returned a mask of another shape, or changed its input.
        """
        weight = linear.weight
        version = weight._version
        if target is not None:
            check_mask("masks", target, weight)
        if self.refiner is None:
            pruned = None
            if target is not None:
                pruned = self.pruner.prune_to(weight, statistics, budget, target)
            if pruned is None:
                pruned = self.pruner.prune(weight, statistics, budget)
            check_result(self.pruner.setting, pruned, weight)
            check_unwritten(self.pruner.setting, weight, version)
            return pruned
        start = self.pruner.start(weight, statistics, budget)
        mask = start.mask
        check_mask(self.pruner.setting, mask, weight)
        if statistics is not None and self.refiner.applies_to(decoder, linear):
            with faults_of(self.refiner, weight):
                mask = self.refiner.refine(weight, mask, statistics, budget.rules)
            check_mask(self.refiner.setting, mask, weight)
        check_unwritten(self.refiner.setting, weight, version)
        if target is not None:
            return PrunedWeight(
                zeroed(weight, target), target, start.finite, (mask != target).sum()
            )
        return PrunedWeight(zeroed(weight, mask), mask, start.finite)


@dataclass(frozen=True, eq=False)
class _BlockPruning:
    """Prunes the linears of a block; see `prune_model` for the attributes."""

    decoder: DecoderModel
    method: RefinedPruner
    budgets: Mapping[str, LinearBudget]
    masks: PackedMasks | None
    checks: PruningChecks

    def prune(self, batch: Batch, statistics: Mapping[str, InputStatistics]) -> Tensor:
        """Prune the linears of `batch` in place; return their masks (linears, rows, cols)."""
        if len(batch) == 1:
            return self._prune_one(batch[0], statistics)[None]
        weights = torch.stack([linear.weight for linear in batch])
        pruner = self.method.pruner
        assert isinstance(pruner, FactorPruner)
        pruned = prune_together(pruner, batch, weights, statistics, self.budgets, self.masks)
        budgets = [self.budgets[linear.key] for linear in batch]
        self.checks.add_batch([linear.key for linear in batch], weights, pruned, budgets)
        for linear, weight in zip(batch, pruned.weight, strict=True):
            linear.weight = weight
        return pruned.mask

    def _prune_one(
        self, linear: PrunableLinear, statistics: Mapping[str, InputStatistics]
    ) -> Tensor:
        inputs, budget = statistics.get(linear.key), self.budgets[linear.key]
        target = None if self.masks is None else self.masks[linear.key].to(linear.weight.device)
        with naming(linear.key), faults_of(self.method.pruner, linear.weight):
            pruned = self.method.prune(self.decoder, linear, inputs, budget, target)
            self.checks.add(linear.key, linear.weight, pruned, budget)
        linear.weight = pruned.weight
        return pruned.mask


def prune_model(
    decoder: DecoderModel,
    pruner: Pruner | RefinedPruner,
    budgets: Mapping[str, LinearBudget],
    tokens: Tensor,
    batch: AdaptiveBatch,
    progress: Progress,
    *,
    masks: PackedMasks | None = None,
) -> PackedMasks:
    """Prune `decoder` in place and return its masks.

    For each block in order: collect statistics of the dense block on inputs that come from the
    pruned blocks before it, prune its linears, and run the pruned block to get the inputs of the
    next one. A pruner without `needs` runs the model only to probe its blocks.

    If several devices prune the model together, each runs its share of the windows. The linears of
    a block are distributed over the devices, and pruned weights are sent to all.

    Args:
        decoder: the model; its weights must be finite (`check_finite`).
        pruner: computes the masks; a `RefinedPruner` also refines them.
        budgets: zeros of every row, by linear.
        tokens: calibration windows (windows, seqlen); unused without `needs`.
        batch: windows in one forward pass, with ``divides=True``.
        progress: receives progress updates.
        masks: masks of an earlier run with these arguments, to which to prune again; None: the
            method chooses. A pruner that updates weights and has no `Pruner.prune_to` chooses
            freely all the same.

    Returns:
        Masks by linear: (rows, cols) bool on the CPU, True = pruned; none on other devices than
        the first. Their `differing` is the number of entries of `masks` that the method would
        choose differently, if it compares them.

    Raises:
        UserError: what the method returned for a linear cannot be used, does not have the zeros
            of its budget, or is NaN or infinite. `decoder` is then pruned in part.
    """
    method = pruner if isinstance(pruner, RefinedPruner) else RefinedPruner(pruner)
    replay = Replay(decoder, tokens, batch) if method.needs else None
    if replay is None:  # nothing else would check that these are the decoder blocks
        batch.run(lambda _: probe_of(decoder, tokens))
    pruned_masks, checks = PackedMasks(), PruningChecks(method.pruner, method.refiner)
    late = method.accepts_any_input
    if late:  # a copy of each linear's counts would wait for the GPU
        budgets = on_device(budgets, decoder.device)
    block = _BlockPruning(decoder, method, budgets, masks, checks)
    with progress.stage("prune", len(decoder), "block") as step:
        for index, linears in decoder.walk(writes=True):
            statistics = replay.measure(index, method.needs, check=not late) if replay else {}
            if late:
                checks.add_inputs(statistics)
            few = under_reached(linears, statistics)
            if few:
                warnings.warn(few, stacklevel=2)
            parts = method.batches(linears, budgets)
            own: dict[Batch, Tensor] = {}
            owners = decoder.peers.owners([sum(lin.numel for lin in part) for part in parts])
            for part, owner in zip(parts, owners, strict=True):
                if owner == decoder.peers.rank:
                    own[part] = block.prune(part, statistics)
            if decoder.peers.rank == 0:
                pruned_masks.reserve({lin.key: (lin.rows, lin.cols) for lin in linears})
            for part, mask in _masks_of_all(decoder.peers, parts, owners, own):
                pruned_masks.add_all([linear.key for linear in part], mask)
            if replay and index < len(decoder) - 1:
                replay.advance(index)
            checks.read()  # after work for a GPU was queued, so that it does not wait
            step.advance(1)
    compared = checks.differing is not None
    (totals,) = decoder.peers.sums([torch.tensor([int(compared), checks.differing or 0])])
    if totals[0]:
        pruned_masks.differing = int(totals[1])
    return pruned_masks


def _masks_of_all(
    peers: Peers,
    parts: Sequence[Batch],
    owners: Sequence[int],
    own: dict[Batch, Tensor],
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield the masks of all linears of a block, with the pruned weights in the model.

    Args:
        peers: the devices that prune the block together.
        parts: the linears of the block, in batches of one shape.
        owners: the device that has pruned each batch.
        own: masks of the batches that this device has pruned; emptied.

    Yields:
        Each batch and its masks (linears, rows, cols), on the first device.
    """
    peers.meet()
    for part, owner in zip(parts, owners, strict=True):
        masks = own.pop(part, None)
        if masks is None:
            shape, device = part[0].weight.shape, part[0].weight.device
            masks = torch.empty(len(part), *shape, dtype=torch.bool, device=device)
        if peers.size > 1:
            for linear in part:
                peers.receive(linear.weight, owner)
            peers.receive(masks, owner)
        if peers.rank == 0:
            yield part, masks


def apply_masks(decoder: DecoderModel, masks: Mapping[str, Tensor]) -> None:
    """Set the weights of `decoder` to zero where the mask of their linear is True."""
    for _, linears in decoder.walk(writes=True):
        for linear in linears:
            linear.weight.masked_fill_(masks[linear.key].to(linear.weight.device), 0)
