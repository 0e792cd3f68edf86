"""The two stages that change a model, allocate and prune: shared by command line and Python."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.fitting import Batch
from neuroal.memory import batch_by_memory, process_peak_bytes
from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules, allot
from neuroal.pruning import Pruned, check_finite, prune_model
from neuroal.refine.base import Refine
from neuroal.statistics import Need
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.tracking import Progress

T = TypeVar("T")


@dataclass
class StageCosts:
    """Seconds and peak memory (bytes) of each stage of a run.

    `peak_bytes` is what was allocated on a GPU during the stage; on a CPU, the most memory that
    the process has held so far. `calibration_tokens` are those of the windows that ``allocate`` and
    ``prune`` looked at, `batch` the windows that they took in one forward pass, `too_large` what
    did not fit.
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
        return {key: dict(value) for key, value in vars(self).items() if key != "device"}

    def resume(self, costs: Mapping[str, Any]) -> None:
        """Go on from `to_dict`'s form: a stage that is done again takes the place of its costs."""
        for key, values in costs.items():
            getattr(self, key).update(values)

    @contextmanager
    def stage(self, name: str, *, more: bool = False) -> Iterator[None]:
        """Time what happens inside; a GPU is waited for.

        Args:
            name: of the stage.
            more: it has other work to do than before; the seconds add up.
        """
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize(self.device)
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else process_peak_bytes()
        self.peak_bytes[name] = max(peak, self.peak_bytes.get(name, 0))
        before = self.seconds.get(name, 0.0) if more else 0.0
        self.seconds[name] = before + time.perf_counter() - start

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """`items`, whose making is timed as a stage."""
        made = iter(items)
        while True:
            with self.stage(name, more=True):
                try:
                    item = next(made)
                except StopIteration:
                    return
            yield item


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

    @property
    def updates_weights(self) -> bool:
        """Whether kept weights change, so that masks alone do not tell the pruned model."""
        return self.pruner.updates_weights and self.refine is None

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
    """Make the plan and prune `subject` in place: `allocate`, then `prune`."""
    allocation = allocate(subject, recipe, search_tokens, costs, progress)
    return allocation, prune(subject, recipe, allocation.plan, pruning_tokens, costs, progress)


def allocate(
    subject: DecoderModel, recipe: Recipe, tokens: Tensor, costs: StageCosts, progress: Progress
) -> Allocation:
    """Make the plan.

    Args:
        subject: the dense model; left dense.
        recipe: how.
        tokens: windows for the top-up's search: (windows, seqlen).
        costs: takes what the stage ``allocate`` costs.
        progress: told of every step.
    """
    check_finite(subject)
    costs.calibration_tokens["allocate"] = tokens.numel() if recipe.topup.searches else 0
    with costs.stage("allocate"):
        fitting = Batch("allocate", recipe.batch or batch_by_memory(subject, *tokens.shape))
        context = AllocationContext(
            subject=subject,
            pruner=recipe.pruner,
            sparsity=recipe.sparsity,
            rules=recipe.rules,
            tokens=tokens,
            batch=fitting.size,
            progress=progress,
            group=recipe.group,
            seed=recipe.seed,
            devices=recipe.devices,
        )
        allocation = fitting.fit(
            lambda size: recipe.topup.allocate(dataclasses.replace(context, batch=size))
        )
    if recipe.topup.searches:
        costs.fitted(fitting)
    return allocation


def prune(
    subject: DecoderModel,
    recipe: Recipe,
    plan: SparsityPlan,
    tokens: Tensor,
    costs: StageCosts,
    progress: Progress,
) -> Pruned:
    """Prune `subject` in place, as `plan` says.

    Args:
        subject: the dense model.
        recipe: how.
        plan: from `allocate`, or kept from then.
        tokens: windows for the pruner's statistics: (windows, seqlen).
        costs: takes what the stage ``prune`` costs.
        progress: told of every step.
    """
    costs.calibration_tokens["prune"] = tokens.numel() if recipe.needs else 0
    with costs.stage("prune"):
        allotments = allot(plan, subject, recipe.rules, recipe.group)
        batch = recipe.batch or batch_by_memory(subject, *tokens.shape)
        pruned = prune_model(
            subject, recipe.pruner, allotments, tokens, batch, progress, recipe.refine
        )
    if recipe.needs and pruned.batch is not None:
        costs.fitted(pruned.batch)
    return pruned
