"""The stages ``allocate`` and ``prune`` of a run, and what they need of its configuration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig, default_seqlen
from neuroal.config.search_windows import search_windows
from neuroal.data.text import CalibrationText, Windows
from neuroal.errors import UserError
from neuroal.execution.costs import StageCosts
from neuroal.execution.memory import batch_by_memory
from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.rates import CPU_RATE, GPU_RATE
from neuroal.gradients.row_sparsity import duration
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import replicas, resolve_device
from neuroal.models.load import LoadedModel
from neuroal.models.totals import Totals
from neuroal.parallel.replicated import copy_to_all, together
from neuroal.pruners.base import MaskRefiner
from neuroal.pruners.faults import MethodFault, faults_of
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.settings import PruningSettings
from neuroal.search.context import AllocationContext
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.budget import LinearBudget, Rules, check_coverage
from neuroal.sparsity.plan import SparsityPlan
from neuroal.topups.base import TopUp
from neuroal.tracking.progress import Progress

log = logging.getLogger(__name__)

NOTEWORTHY = 60.0
"""Seconds of pruning in a search from which their estimate is logged."""
SHARED_VERSION = 1
"""Number of the results' version of what all methods share: calibration, statistics, budgets. It is
part of a run's identity; raise it when a change of this code changes results."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """Methods and settings with which to prune a model.

    Attributes:
        settings: pruner, budget and execution settings.
        topup: allocates the sparsity.
        refiner: swaps pruned and kept weights at equal counts; None: masks stay as pruned.
    """

    settings: PruningSettings
    topup: TopUp
    refiner: MaskRefiner | None = None

    @property
    def updates_weights(self) -> bool:
        """Whether pruning changes kept weights, so that masks alone do not determine the model."""
        return self.settings.pruner.updates_weights and self.refiner is None

    def check(self) -> None:
        """Raise `UserError` if methods and settings cannot be combined."""
        self.settings.check_rules()
        if self.refiner and not self.settings.pruner.refinable:
            raise UserError(
                f"refine={self.refiner.name}: another mask would undo the fit of "
                f"pruner={self.settings.pruner.name}; use refine=none"
            )
        rows = self.topup.row_ratios(self.settings.pruner)
        if rows is not None:
            self.settings.check_row_ratios(rows.key, rows.remedy)
        self.topup.check(self.settings)
        if self.refiner and self.settings.group is not None and not self.refiner.patterns:
            raise UserError(
                f"refine={self.refiner.name}: swaps weights across the groups of an N:M pattern "
                f"(sparsity.of={self.settings.group}); use refine=none"
            )


def allocate(
    decoder: DecoderModel, recipe: Recipe, tokens: Tensor, costs: StageCosts, progress: Progress
) -> Allocation:
    """Allocate the sparsity of the dense model `decoder`, which remains dense.

    `tokens` are the search windows: (windows, seqlen). `costs` receives the costs of the stage.
    """
    settings, topup = recipe.settings, recipe.topup
    if line := _prunings_of_search(decoder, recipe):
        log.info(line)
    costs.calibration_tokens["allocate"] = tokens.numel() if topup.searches else 0
    with costs.stage("allocate"):
        size = settings.batch or batch_by_memory(decoder, *tokens.shape)
        batch = AdaptiveBatch("allocate", size)
        arguments = (topup, settings, tokens, batch)
        allocation: Allocation
        if topup.shares_windows:
            allocation = together(decoder, _allocate, *arguments, progress=progress)
        else:
            allocation = _allocate(decoder, *arguments, progress=progress)
    if topup.searches:
        costs.record_batch(batch)
    return allocation


def _prunings_of_search(decoder: DecoderModel, recipe: Recipe) -> str | None:
    """Return how often a search prunes, and about how long; None for less than a minute."""
    pruner, count = recipe.settings.pruner, recipe.topup.search_prunings(recipe.settings.pruner)
    operations = sum(lin.numel * pruner.operations_per_weight(lin.cols) for lin in decoder)
    rate = GPU_RATE if decoder.device.type == "cuda" else CPU_RATE * torch.get_num_threads()
    seconds = count * operations / rate / max(1, len(recipe.settings.devices))
    if seconds < NOTEWORTHY:
        return None
    return (
        f"allocate: prunes the model {count} times by {pruner.setting}, about {duration(seconds)}"
    )


def _allocate(
    decoder: DecoderModel,
    topup: TopUp,
    settings: PruningSettings,
    tokens: Tensor,
    batch: AdaptiveBatch,
    *,
    progress: Progress,
) -> Allocation:
    batch.peers = decoder.peers

    def allocate_by(size: int) -> Allocation:
        context = AllocationContext(decoder, settings, tokens, size, progress)
        with faults_of(topup):
            return _checked(topup, topup.allocate(context), decoder)

    return batch.run(allocate_by)


def _checked(topup: TopUp, allocation: object, decoder: DecoderModel) -> Allocation:
    """Return `allocation`; raise `UserError` unless its plan has ratios for every linear."""
    if not (isinstance(allocation, Allocation) and isinstance(allocation.plan, SparsityPlan)):
        kind = type(allocation).__name__
        problem = f"allocate returned a {kind}; must return an Allocation of a SparsityPlan"
        raise MethodFault(topup.setting, problem)
    try:
        check_coverage(allocation.plan, {lin.key: (lin.rows, lin.cols) for lin in decoder})
    except UserError as error:
        raise MethodFault(topup.setting, str(error)) from error
    return allocation


def prune(
    decoder: DecoderModel,
    recipe: Recipe,
    allocation: Allocation,
    tokens: Tensor,
    costs: StageCosts,
    progress: Progress,
    *,
    masks: PackedMasks | None = None,
) -> PackedMasks:
    """Prune the dense model `decoder` in place; return the masks of all pruned linears.

    `tokens` are the calibration windows of the pruner: (windows, seqlen). `costs` receives the
    costs of the stage. With `masks`, prune to these masks of an earlier run (`prune_model`).
    """
    settings = recipe.settings
    pruner = RefinedPruner(settings.pruner, recipe.refiner)
    costs.calibration_tokens["prune"] = tokens.numel() if pruner.needs else 0
    with costs.stage("prune"):
        budgets = allocation.budgets or settings.budgets(allocation.plan, decoder)
        settings.check_total(budgets, decoder)
        settings.pruner.check_tokens(tokens.numel(), decoder)
        if line := Totals.of(decoder).warning:
            warnings.warn(line, stacklevel=2)
        # A resumed run uses the batch size of its first attempt, on which rounding depends.
        size = costs.batch.get("prune") or settings.batch or batch_by_memory(decoder, *tokens.shape)
        batch = AdaptiveBatch("prune", size, divides=True)
        arguments = (pruner, budgets, tokens, batch)
        if pruner.needs:
            pruned: PackedMasks = together(
                decoder, _prune, *arguments, progress=progress, masks=masks
            )
        else:  # faster than starting the other devices
            pruned = _prune(decoder, *arguments, progress=progress, masks=masks)
            copy_to_all(decoder.model)
    if pruner.needs:
        costs.record_batch(batch)
    return pruned


def _prune(
    decoder: DecoderModel,
    pruner: RefinedPruner,
    budgets: Mapping[str, LinearBudget],
    tokens: Tensor,
    batch: AdaptiveBatch,
    *,
    progress: Progress,
    masks: PackedMasks | None,
) -> PackedMasks:
    batch.peers = decoder.peers
    return prune_model(decoder, pruner, budgets, tokens, batch, progress, masks=masks)


def make_recipe(config: RunConfig) -> Recipe:
    """Instantiate the methods of `config` and check that they can be combined."""
    settings = PruningSettings(
        pruner=build("pruner", config.pruner),
        sparsity=config.sparsity.ratio,
        rules=Rules(config.rules),
        group=config.sparsity.of,
        seed=config.seed,
        devices=replicas(resolve_device(config.device), config.devices, config.offload),
        batch=config.batch,
    )
    recipe = Recipe(settings, build("topup", config.topup), build("refine", config.refine))
    recipe.check()
    recipe.topup.check_windows(search_windows(config), config.calibration.seqlen)
    return recipe


def calibration_windows(
    config: RunConfig, text: CalibrationText, loaded: LoadedModel
) -> tuple[Windows, Windows]:
    """Draw calibration windows for pruning and for the search, both from the same seed."""
    calibration = config.calibration
    seqlen = default_seqlen(calibration.seqlen, loaded.context, "calibration.seqlen")
    seed = config.seed if calibration.seed is None else calibration.seed
    numbers, bos = (calibration.windows, search_windows(config)), calibration.bos
    pruning, search = (text.windows(loaded.tokenizer, n, seqlen, seed, bos) for n in numbers)
    for windows in (pruning, search):
        loaded.check_tokens(windows.tokens, windows.source)
    return pruning, search
