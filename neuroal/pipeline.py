"""The two stages that change a model, allocate and prune: shared by command line and Python."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.fitting import Batch
from neuroal.memory import batch_by_memory
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.pruning import Pruned, check_finite, prune_model
from neuroal.refine.base import Refine
from neuroal.statistics import Need
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.tracking import Progress


@dataclass
class StageCosts:
    """Seconds and peak device memory (bytes) of each stage of a run.

    `calibration_tokens` are the tokens of the windows that ``allocate`` and ``prune`` looked at,
    `batch` the windows they took in one forward pass, `too_large` those that did not fit.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    calibration_tokens: dict[str, int] = field(default_factory=dict)
    batch: dict[str, int] = field(default_factory=dict)
    too_large: dict[str, list[int]] = field(default_factory=dict)

    def fitted(self, batch: Batch) -> None:
        """Take down how many windows a stage took at once, and how many did not fit."""
        self.batch[batch.stage] = batch.size
        if batch.too_large:
            self.too_large[batch.stage] = batch.too_large

    def to_dict(self) -> dict[str, Any]:
        """For the record."""
        return {key: value for key, value in vars(self).items() if key != "device"}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside; a GPU is waited for."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize(self.device)
            self.peak_bytes[name] = torch.cuda.max_memory_allocated(self.device)
        self.seconds[name] = time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to prune: the methods and the budget.

    Attributes:
        pruner: orders the weights of a linear.
        topup: makes the plan.
        sparsity: share of zeros over all prunable weights, in (0, 1).
        rules: exact or reference.
        batch: windows in one forward pass; None: by memory.
        refine: changes the masks at equal counts, if anything does.
        group: M of an N:M pattern, whose N each block gets by its ratio; None: no pattern.
        seed: of everything that a top-up draws at random.
        devices: that share the candidates of a search, the model's first; empty: that alone.
    """

    pruner: Pruner
    topup: TopUp
    sparsity: float
    rules: Rules = Rules.EXACT
    batch: int | None = None
    refine: Refine | None = None
    group: int | None = None
    seed: int = 0
    devices: tuple[torch.device, ...] = ()

    @property
    def needs(self) -> frozenset[Need]:
        """The input statistics that pruner and refinement need; empty: they look at no text."""
        return self.pruner.needs | (self.refine.needs if self.refine else frozenset())

    def check(self) -> None:
        """Raise `UserError` for what cannot be combined."""
        self.topup.check(self.pruner, self.sparsity, self.rules, self.group)
        if self.refine is not None:
            if self.group is not None and not self.refine.patterns:
                name = type(self.refine).__name__.lower()
                raise UserError(
                    f"refine={name}: swaps weights across the groups of an N:M pattern "
                    f"(sparsity.of={self.group}); use refine=none"
                )
            self.refine.check(self.pruner, self.sparsity, self.rules)


def allocate_and_prune(
    subject: DecoderModel,
    recipe: Recipe,
    search_tokens: Tensor,
    pruning_tokens: Tensor,
    costs: StageCosts,
    progress: Progress,
) -> tuple[Allocation, Pruned]:
    """Make the plan and prune `subject` in place.

    Args:
        subject: the dense model.
        recipe: how.
        search_tokens: windows for the top-up's search: (windows, seqlen).
        pruning_tokens: windows for the pruner's statistics: (windows, seqlen).
        costs: takes what the stages ``allocate`` and ``prune`` cost.
        progress: told of every step.
    """
    check_finite(subject)
    costs.calibration_tokens = {
        "allocate": search_tokens.numel() if recipe.topup.searches else 0,
        "prune": pruning_tokens.numel() if recipe.needs else 0,
    }
    with costs.stage("allocate"):
        fitting = Batch("allocate", recipe.batch or batch_by_memory(subject, *search_tokens.shape))
        context = AllocationContext(
            subject=subject,
            pruner=recipe.pruner,
            sparsity=recipe.sparsity,
            rules=recipe.rules,
            tokens=search_tokens,
            batch=fitting.size,
            progress=progress,
            group=recipe.group,
            seed=recipe.seed,
            devices=recipe.devices,
        )
        allocation = fitting.fit(
            lambda size: recipe.topup.allocate(dataclasses.replace(context, batch=size))
        )
        allotments = context.allot(allocation.plan)
    with costs.stage("prune"):
        batch = recipe.batch or batch_by_memory(subject, *pruning_tokens.shape)
        pruned = prune_model(
            subject, recipe.pruner, allotments, pruning_tokens, batch, progress, recipe.refine
        )
    for stage, looked in ((fitting, recipe.topup.searches), (pruned.batch, bool(recipe.needs))):
        if looked:
            costs.fitted(stage)
    return allocation, pruned
