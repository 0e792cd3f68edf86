"""Equal marginals: move zeros from rows where one more is dear to rows where it is cheap."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError, check_choice
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.topups.backward import repeatable
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.block_error import BlockError
from neuroal.topups.divergence import Band, Objective, OutputDivergence
from neuroal.topups.ranks import Ranks
from neuroal.topups.rows import Rows, shuffled
from neuroal.topups.uniform import uniform_plan

STEPS = ("linear", "row", "both")
OBJECTIVES = ("kl", "cross_entropy", "block_error")
COOLING = 1.5
"""The last step is e^−1.5 of the first."""
ENOUGH_WINDOWS = 32


@dataclass(frozen=True)
class EqualMarginals(TopUp):
    """Deals a fixed number of zeros out so that one more would cost the same everywhere.

    The cost is that of D = mean over tokens of KL(p_dense ‖ p_sparse) on the search windows. The
    order in which a row gives up its weights is the pruner's, from one dense pass. Then, T times,
    on the next few windows: prune by the present allocation, take the gradient G of D with respect
    to all weights, the zeroed ones too, and average −G·W over the weights of each row that are
    about to go or to come back (ranks k_r ± w). With the running mean of these costs,
    standardised over all rows and clipped to ±3, as z_r::

        s_r ← clip(s_r − η·exp(−1.5·t/T)·z_r, 0.02, 0.99), then a common shift back to the budget

    The plan is the mean over the last iterations. Weights are never changed. Gradients of an
    output divergence are used to allocate, not to train.

    Source: this project.

    Args:
        step: ``linear`` (one sparsity a linear), ``row``, or ``both``, rows after linears.
        objective: ``kl`` (D), ``cross_entropy`` of the text itself, ``block_error``
            (`BlockError`).
        linear_iterations: T of the linears; null: 40, or 25 before rows.
        row_iterations: T of the rows; null: 80, or 60 after linears.
        linear_rate: η of the linears.
        row_rate: η of the rows.
        windows: of one iteration, drawn from the search windows in shuffled passes.
        band: w as a share of the columns; at least 4 columns.
        momentum: weight of the past in the running mean.
        averaged: share of the iterations, from the end, that the plan is the mean of.
        second_order: weight of ½·N·(G·W)² beside −G·W.
        rerank: iterations after which the order is taken anew, from inputs that come through the
            sparse blocks; 0: never.
        start: file of a plan to start from; null: uniform.

    Sample YAML::

        _target_: neuroal.topups.marginal.EqualMarginals
        step: both
    """

    step: str = "both"
    objective: str = "kl"
    linear_iterations: int | None = None
    row_iterations: int | None = None
    linear_rate: float = 0.03
    row_rate: float = 0.02
    windows: int = 8
    band: float = 0.1
    momentum: float = 0.8
    averaged: float = 0.4
    second_order: float = 0.0
    rerank: int = 0
    start: str | None = None

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("topup.step", self.step, STEPS)
        check_choice("topup.objective", self.objective, OBJECTIVES)
        for key in ("linear_iterations", "row_iterations", "windows"):
            number = getattr(self, key)
            if number is not None and number < 1:
                raise UserError(f"topup.{key}={number}: must be at least 1")
        for key in ("linear_rate", "row_rate", "band", "averaged"):
            share = getattr(self, key)
            if not 0 < share <= 1:
                raise UserError(f"topup.{key}={share}: must be above 0 and at most 1")
        if not 0 <= self.momentum < 1:
            raise UserError(f"topup.momentum={self.momentum}: must be at least 0 and below 1")
        if self.second_order < 0 or self.rerank < 0:
            raise UserError("topup.second_order, topup.rerank: must not be negative")
        if self.second_order and self.objective == "block_error":
            raise UserError(
                f"topup.second_order={self.second_order}: is for a mean over tokens; "
                "use topup.objective=kl or cross_entropy, or topup.second_order=0"
            )

    def check(
        self, pruner: Pruner, sparsity: float, rules: Rules, group: int | None = None
    ) -> None:
        self.starting_plan(sparsity)
        if self.step == "linear":
            return
        if group is not None:
            raise UserError(
                f"topup.step={self.step}: an N:M pattern (sparsity.of={group}) has one N a linear; "
                "use topup.step=linear"
            )
        if pruner.updates_weights and rules is Rules.REFERENCE:
            raise UserError(
                f"topup.step={self.step}: the authors' code has no row plans for "
                f"pruner={type(pruner).__name__.lower()}; use rules=exact or topup.step=linear"
            )

    def starting_plan(self, sparsity: float) -> SparsityPlan | None:
        """The plan that `start` names, for a budget of `sparsity`."""
        if self.start is None:
            return None
        return SparsityPlan(SparsityPlan.load(self.start, "topup.start").ratios, sparsity)

    def allocate(self, context: AllocationContext) -> Allocation:
        if len(context.tokens) < ENOUGH_WINDOWS:
            warnings.warn(
                f"topup=marginal fits {len(context.tokens)} windows of text; "
                f"with calibration.search_windows={ENOUGH_WINDOWS} or more it generalises better",
                stacklevel=2,
            )
        search = _Search.begin(self, context)
        if self.step != "row":
            iterations = self.linear_iterations or (40 if self.step == "linear" else 25)
            search.descend(iterations, self.linear_rate, by_row=False)
        if self.step != "linear":
            iterations = self.row_iterations or (80 if self.step == "row" else 60)
            search.descend(iterations, self.row_rate, by_row=True)
        report = {"step": self.step, "objective": self.objective, **search.history}
        return Allocation(search.rows.plan(context.sparsity, self.step != "linear"), report)


@dataclass(eq=False)
class _Search:
    """The descent: where the zeros are now, and what it has seen."""

    settings: EqualMarginals
    context: AllocationContext
    runner: BlockRunner
    ranks: Ranks
    objective: Objective
    rows: Rows
    minibatches: Iterator[list[int]]
    seconds: float
    history: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, settings: EqualMarginals, context: AllocationContext) -> _Search:
        subject, tokens = context.subject, context.tokens
        plan = settings.starting_plan(context.sparsity) or uniform_plan(subject, context.sparsity)
        rows = Rows.of(subject, plan)
        begin = time.perf_counter()
        runner = BlockRunner.capture(subject, tokens, context.batch)
        ranks = Ranks(subject, context.pruner)
        dense = torch.cat(ranks.measure(runner, context.progress))
        share = min(settings.windows, len(tokens)) / len(tokens)
        # The dense pass was two forward passes over all windows; an iteration is three or four.
        seconds = (time.perf_counter() - begin) * 2 * share
        objective = make_objective(settings, context, runner, ranks, dense)
        minibatches = shuffled(len(tokens), settings.windows, context.seed)
        return cls(settings, context, runner, ranks, objective, rows, minibatches, seconds)

    def descend(self, iterations: int, rate: float, by_row: bool) -> None:
        """Walk `iterations` steps and stay at the mean of the last ones."""
        settings, rows = self.settings, self.rows
        first_averaged = iterations - max(1, round(settings.averaged * iterations))
        mean: Tensor | None = None
        total = torch.zeros_like(rows.sparsity)
        values, spreads = [], []
        unit = "row" if by_row else "linear"
        name = f"equal {unit}s, about {_duration(self.seconds * iterations)}"
        with self.context.progress.stage(name, iterations, "iteration") as step:
            for t in range(iterations):
                if settings.rerank and t and t % settings.rerank == 0:
                    self.ranks.measure(self.runner, self.context.progress, rows.counts())
                with repeatable(self.context.subject.device):
                    found = self.objective.margins(rows.counts(), next(self.minibatches))
                costs = rows.joined(found.costs, by_row)
                past = settings.momentum
                mean = costs if mean is None else past * mean + (1 - past) * costs
                z, spread = rows.standardised(mean)
                rows.move(-rate * math.exp(-COOLING * t / iterations) * z)
                if t >= first_averaged:
                    total += rows.sparsity
                values.append(found.value)
                spreads.append(spread)
                step.advance(1, D=found.value, spread=spread)
        rows.sparsity = total / (iterations - first_averaged)
        self.history |= {f"objective_{unit}": values, f"spread_{unit}": spreads}


def make_objective(
    settings: EqualMarginals,
    context: AllocationContext,
    runner: BlockRunner,
    ranks: Ranks,
    dense: Tensor,
) -> Objective:
    """The objective that `settings` names."""
    band = Band(settings.band)
    batch = min(context.batch, settings.windows)
    if settings.objective == "block_error":
        return BlockError(runner, ranks, context.tokens, batch, band)
    return OutputDivergence(
        runner,
        ranks,
        context.tokens,
        dense,
        batch,
        band,
        of_text=settings.objective == "cross_entropy",
        second_order=settings.second_order,
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
