"""Equal marginals: shift zeros from rows where one more is expensive to rows where it is cheap."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError, check_choice
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import repeatable
from neuroal.gradients.block_error import BlockError
from neuroal.gradients.divergence import OutputDivergence
from neuroal.gradients.fisher import FisherRounds
from neuroal.gradients.objective import Band, Objective, ObjectiveInputs
from neuroal.gradients.presets import PRESETS
from neuroal.gradients.row_sparsity import RowSparsity, duration, shuffled
from neuroal.gradients.updated_order import UpdatedOrder
from neuroal.gradients.weight_order import WeightOrder
from neuroal.pruners.base import Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.topups.base import Allocation, AllocationContext, RowRatios, TopUp
from neuroal.topups.fisher import Fisher, ordered

STEPS = ("linear", "row", "both")
STARTS = ("fisher", "uniform")
PASSES = 3.0
"""Cost of an iteration in forward passes over its windows."""
OBJECTIVES = ("kl", "cross_entropy", "block_error")
COOLING = 1.5
"""The rate decays exponentially to e^−1.5 of its initial value."""
ENOUGH_WINDOWS = 32


@dataclass(frozen=True)
class EqualMarginals(TopUp):
    """Allocate a fixed number of zeros such that an additional zero costs the same in every row.

    The cost is the increase of D = mean over tokens of KL(p_dense ‖ p_sparse) on the search
    windows. The pruner's scores from one dense pass fix the order in which the weights of a row are
    pruned. Each of T iterations prunes by the current allocation, computes the gradient G of D at
    all weights W, including the zeroed ones, on the next few windows, and averages −G·W and a
    second-order term over the ranks [k_r − w, k_r + w) of each row, which has k_r zeros. With z_r
    the running mean of these costs, standardised over all rows and clipped to ±3::

        s_r ← clip(s_r − η·exp(−1.5·t/T)·z_r, 0.02, 0.99), then a common shift to the budget

    The plan is the mean over the last iterations. A pruner that updates weights prunes the model at
    the start and three times more (`rerank`), and W are its updated weights where it keeps them.

    Source: this project.

    Args:
        preset: ``fast``, ``default``, ``best`` or ``first`` (version 0.1); sets the parameters that
            are None (`neuroal.gradients.presets`).
        step: ``linear`` (one sparsity per linear), ``row``, or ``both`` (linears, then rows).
        objective: ``kl`` (D), ``cross_entropy`` (of the text), or ``block_error`` (`BlockError`).
        linear_iterations: T for linears.
        row_iterations: T for rows.
        linear_rate: η for linears.
        row_rate: η for rows.
        windows: windows of one iteration, drawn from the search windows in shuffled passes.
        band: w as a share of the columns; w is at least 4.
        momentum: weight of earlier iterations in the running mean of the costs.
        averaged: share of the iterations that the plan averages, counted from the last.
        second_order: weight c of the second-order term c·½·N·(G·W)² with N tokens; 0 with
            ``objective=block_error``.
        rerank: number of iterations after which the order is computed again, behind the sparse
            blocks; 0: never. None: 0, or ⌈T/4⌉ for a pruner that updates weights (`UpdatedOrder`).
        start: initial plan: ``fisher`` (`Fisher`, elementwise), ``uniform``, or the path of a plan.
    """

    preset: str = "default"
    step: str | None = None
    objective: str = "kl"
    linear_iterations: int | None = None
    row_iterations: int | None = None
    linear_rate: float = 0.03
    row_rate: float = 0.02
    windows: int = 8
    band: float = 0.1
    momentum: float | None = None
    averaged: float = 0.4
    second_order: float | None = None
    rerank: int | None = None
    start: str | None = None

    version: ClassVar[int] = 4
    searches: ClassVar[bool] = True
    shares_windows: ClassVar[bool] = True
    default_windows: ClassVar[int] = 64
    file_parameters: ClassVar[frozenset[str]] = frozenset({"start"})

    def __post_init__(self) -> None:
        check_choice("topup.preset", self.preset, PRESETS)
        check_choice("topup.step", self.resolved["step"], STEPS)
        check_choice("topup.objective", self.objective, OBJECTIVES)
        for key in ("linear_iterations", "row_iterations", "windows"):
            number = getattr(self, key)
            if number is not None and number < 1:
                raise UserError(f"topup.{key}={number}: must be at least 1")
        for key in ("linear_rate", "row_rate", "band", "averaged"):
            share = getattr(self, key)
            if not 0 < share <= 1:
                raise UserError(f"topup.{key}={share}: must be above 0 and at most 1")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise UserError(f"topup.momentum={self.momentum}: must be at least 0 and below 1")
        for key in ("second_order", "rerank"):
            if (getattr(self, key) or 0) < 0:
                raise UserError(f"topup.{key}={getattr(self, key)}: must not be negative")
        if self.second_order and self.objective == "block_error":
            raise UserError(
                f"topup.second_order={self.second_order}: needs an objective that averages over "
                "tokens; use topup.objective=kl or cross_entropy, or topup.second_order=0"
            )

    @cached_property
    def resolved(self) -> Mapping[str, Any]:
        """The parameters that a preset sets, with their values in this search."""
        preset = PRESETS[self.preset]
        step = self.step or preset.step
        linears, rows = preset.iterations(step)
        defaults: dict[str, Any] = {
            "start": preset.start,
            "step": step,
            "linear_iterations": linears,
            "row_iterations": rows,
            "momentum": preset.momentum,
            "second_order": 0.0 if self.objective == "block_error" else preset.second_order,
        }
        chosen = {key: getattr(self, key) for key in defaults if getattr(self, key) is not None}
        unused = {"linear": "row_iterations", "row": "linear_iterations"}.get(step)
        return {**defaults, **chosen, **({unused: 0} if unused else {})}

    def row_ratios(self, pruner: Pruner) -> RowRatios | None:
        step = self.resolved["step"]
        return None if step == "linear" else RowRatios(f"topup.step={step}", "topup.step=linear")

    def check(self, settings: PruningSettings) -> None:
        self.plan_of_file(settings.sparsity)

    def search_passes(self, windows: int) -> float:
        iterations = self.resolved["linear_iterations"] + self.resolved["row_iterations"]
        passes = float(PASSES * iterations * self.windows / windows)
        start = Fisher(windows=self.windows).search_passes(windows)
        return passes + (start if self.resolved["start"] == "fisher" else 0.0)

    def brief(self) -> EqualMarginals:
        numbers = (self.resolved[f"{unit}_iterations"] for unit in ("linear", "row"))
        linears, rows = (min(2, number) or None for number in numbers)
        return replace(self, linear_iterations=linears, row_iterations=rows)

    def search_bytes(self, weights: float, states: float) -> float:
        return states + weights  # gradients of a batch, and the order of all weights

    def search_prunings(self, pruner: Pruner) -> int:
        steps = (self.resolved["linear_iterations"], self.resolved["row_iterations"])
        intervals = ((n, self.interval(pruner, n)) for n in steps if pruner.updates_weights)
        return sum(-(-n // interval) for n, interval in intervals if interval)

    def interval(self, pruner: Pruner, iterations: int) -> int:
        """Return the number of iterations between two computations of the order; 0: only one."""
        if self.rerank is not None:
            return self.rerank
        return PRESETS[self.preset].interval(iterations) if pruner.updates_weights else 0

    def plan_of_file(self, sparsity: float) -> SparsityPlan | None:
        """Return the plan in the file `start`, with a budget of `sparsity`; None without a file."""
        if self.start is None or self.start in STARTS:
            return None
        return SparsityPlan(SparsityPlan.load(self.start, "topup.start").ratios, sparsity)

    def fisher(self, tokens: Tensor) -> Fisher:
        """Return the method that makes the initial plan from the windows `tokens`."""
        windows, seqlen = tokens.shape
        step = "linear" if self.resolved["step"] == "linear" else "row"
        form, skip = "elementwise", min(Fisher.skip, seqlen // 2)
        return Fisher(windows=min(self.windows, windows), form=form, skip=skip, step=step)

    def allocate(self, context: AllocationContext) -> Allocation:
        if len(context.tokens) < ENOUGH_WINDOWS:
            warnings.warn(
                f"topup=marginal fits only {len(context.tokens)} windows of text; set "
                f"calibration.search_windows={ENOUGH_WINDOWS} or more for a plan that generalises",
                stacklevel=2,
            )
        search, chosen = _Search(self, context), self.resolved
        if chosen["linear_iterations"]:
            search.descend(chosen["linear_iterations"], self.linear_rate, by_row=False)
        if chosen["row_iterations"]:
            search.descend(chosen["row_iterations"], self.row_rate, by_row=True)
        plan = search.rows.plan(context.settings.sparsity, chosen["step"] != "linear")
        report = {"preset": self.preset, "objective": self.objective, **chosen, **search.history}
        return Allocation(plan, report)


class _Search:
    """The iterations of `EqualMarginals` and their state.

    Attributes:
        rows: current sparsity of every row.
        history: objective and variation of the costs in every iteration, for the report.
    """

    def __init__(self, settings: EqualMarginals, context: AllocationContext) -> None:
        self._settings, self._context = settings, context
        self.history: dict[str, Any] = {}
        decoder, tokens = context.decoder, context.tokens
        self._minibatches = shuffled(len(tokens), settings.windows, context.settings.seed)
        start = self._start()
        begin = time.perf_counter()
        self._runner = BlockRunner.capture(decoder, tokens, context.batch)
        pruner = context.settings.pruner
        self._order = (UpdatedOrder if pruner.updates_weights else WeightOrder)(decoder, pruner)
        hidden = torch.cat(self._order.compute(self._runner, context.progress))
        if isinstance(start, FisherRounds):
            by_row = settings.resolved["step"] != "linear"
            start = start.plan(context.settings.sparsity, by_row, self._order)
        self.rows = RowSparsity.of(decoder, start)
        dense = self._runner.share.joined(hidden)
        share = min(settings.windows, len(tokens)) / len(tokens)
        # Ranking takes one forward pass over all windows, an iteration three or four over some.
        self._seconds = (time.perf_counter() - begin) * 4 * share
        self._objective = self._objective_on(dense)

    def _start(self) -> SparsityPlan | FisherRounds:
        """Return the initial plan, or the rounds that give it with the pruner's order."""
        settings, context = self._settings, self._context
        sparsity, start = context.settings.sparsity, settings.resolved["start"]
        if start == "uniform":
            return uniform_plan(context.decoder, sparsity)
        if start != "fisher":
            plan = settings.plan_of_file(sparsity)
            assert plan is not None
            return plan
        fisher = settings.fisher(context.tokens)
        rounds = fisher.run(context, [next(self._minibatches) for _ in range(fisher.rounds)])
        self.history["loss_fisher"] = rounds.losses
        if ordered(context.settings.pruner):
            return rounds
        return rounds.plan(sparsity, fisher.step == "row")

    def _objective_on(self, dense: Tensor) -> Objective:
        settings = self._settings
        batch = min(self._context.batch, settings.windows)
        inputs = ObjectiveInputs(
            self._runner, self._order, self._context.tokens, batch, Band(settings.band)
        )
        if settings.objective == "block_error":
            return BlockError(inputs)
        return OutputDivergence(
            inputs,
            dense,
            of_text=settings.objective == "cross_entropy",
            second_order=settings.resolved["second_order"],
        )

    def descend(self, iterations: int, rate: float, by_row: bool) -> None:
        """Run `iterations` and set the sparsities to the mean over the last ones."""
        settings, rows, device = self._settings, self.rows, self._context.decoder.device
        first_averaged = iterations - max(1, round(settings.averaged * iterations))
        mean: Tensor | None = None
        total = torch.zeros_like(rows.sparsity)
        values, variations, unit = [], [], "row" if by_row else "linear"
        interval = settings.interval(self._context.settings.pruner, iterations)
        seconds = self._seconds * iterations + self._update(iterations, interval)
        name = f"equal {unit}s, about {duration(seconds)}"
        with self._context.progress.stage(name, iterations, "iteration") as step:
            for t in range(iterations):
                if interval and t and t % interval == 0:
                    self._order.update(self._runner, self._context.progress, rows.counts())
                counts = rows.counts()
                with repeatable(device):
                    margins = self._objective.margins(counts, next(self._minibatches))
                costs = rows.joined(margins.costs, by_row)
                past = settings.resolved["momentum"]
                mean = costs if mean is None else past * mean + (1 - past) * costs
                z, variation = rows.standardised(mean)
                rows.move(-rate * math.exp(-COOLING * t / iterations) * z)
                if t >= first_averaged:
                    total += rows.sparsity
                values.append(margins.value)
                variations.append(variation)
                step.advance(1, D=margins.value, spread=variation)
        rows.sparsity = total / (iterations - first_averaged)
        self.history |= {f"objective_{unit}": values, f"spread_{unit}": variations}

    def _update(self, iterations: int, interval: int) -> float:
        """Prune by a pruner that updates weights; return the seconds of the further prunings."""
        if not (interval and isinstance(self._order, UpdatedOrder)):
            return 0.0
        begin = time.perf_counter()
        self._order.update(self._runner, self._context.progress, self.rows.counts())
        return (time.perf_counter() - begin) * ((iterations - 1) // interval)
