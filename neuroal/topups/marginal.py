"""Equal marginals: shift zeros from rows where one more is expensive to rows where it is cheap."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError, check_choice
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import repeatable
from neuroal.gradients.block_error import BlockError
from neuroal.gradients.divergence import OutputDivergence
from neuroal.gradients.objective import Band, Objective, ObjectiveInputs
from neuroal.gradients.row_sparsity import RowSparsity, shuffled
from neuroal.gradients.weight_order import WeightOrder
from neuroal.pruners.base import Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.topups.base import Allocation, AllocationContext, RowRatios, TopUp

STEPS = ("linear", "row", "both")
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
    all weights W, including the zeroed ones, on the next few windows, and averages −G·W over the
    ranks [k_r − w, k_r + w) of each row, which has k_r zeros. With z_r the running mean of these
    costs, standardised over all rows and clipped to ±3::

        s_r ← clip(s_r − η·exp(−1.5·t/T)·z_r, 0.02, 0.99), then a common shift to the budget

    The plan is the mean over the last iterations. Weights are never updated.

    Source: this project.

    Args:
        step: ``linear`` (one sparsity per linear), ``row``, or ``both`` (linears, then rows).
        objective: ``kl`` (D), ``cross_entropy`` (of the text), or ``block_error`` (`BlockError`).
        linear_iterations: T for linears; None: 40, or 25 if rows follow.
        row_iterations: T for rows; None: 80, or 60 after linears.
        linear_rate: η for linears.
        row_rate: η for rows.
        windows: windows of one iteration, drawn from the search windows in shuffled passes.
        band: w as a share of the columns; w is at least 4.
        momentum: weight of earlier iterations in the running mean of the costs.
        averaged: share of the iterations that the plan averages, counted from the last.
        second_order: weight of the term ½·N·(G·W)² beside −G·W, with N tokens.
        rerank: number of iterations after which the order is computed again behind the sparse
            blocks; 0: never.
        start: path of the initial plan; None: uniform.
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
    file_parameters: ClassVar[frozenset[str]] = frozenset({"start"})

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
        for key in ("second_order", "rerank"):
            if getattr(self, key) < 0:
                raise UserError(f"topup.{key}={getattr(self, key)}: must not be negative")
        if self.second_order and self.objective == "block_error":
            raise UserError(
                f"topup.second_order={self.second_order}: needs an objective that averages over "
                "tokens; use topup.objective=kl or cross_entropy, or topup.second_order=0"
            )

    def row_ratios(self, pruner: Pruner) -> RowRatios | None:
        if self.step == "linear":
            return None
        return RowRatios(f"topup.step={self.step}", "topup.step=linear")

    def check(self, settings: PruningSettings) -> None:
        self.starting_plan(settings.sparsity)

    def search_passes(self) -> float:
        linears, rows = self._iterations()
        return 3.0 * (linears + rows)

    def _iterations(self) -> tuple[int, int]:
        """Return the numbers of iterations for linears and for rows."""
        linears = self.linear_iterations or (40 if self.step == "linear" else 25)
        rows = self.row_iterations or (80 if self.step == "row" else 60)
        return (0 if self.step == "row" else linears), (0 if self.step == "linear" else rows)

    def starting_plan(self, sparsity: float) -> SparsityPlan | None:
        """Return the plan in the file `start`, with a budget of `sparsity`; None without a file."""
        if self.start is None:
            return None
        return SparsityPlan(SparsityPlan.load(self.start, "topup.start").ratios, sparsity)

    def allocate(self, context: AllocationContext) -> Allocation:
        if len(context.tokens) < ENOUGH_WINDOWS:
            warnings.warn(
                f"topup=marginal fits only {len(context.tokens)} windows of text; set "
                f"calibration.search_windows={ENOUGH_WINDOWS} or more for a plan that generalises",
                stacklevel=2,
            )
        search = _Search(self, context)
        linears, rows = self._iterations()
        if linears:
            search.descend(linears, self.linear_rate, by_row=False)
        if rows:
            search.descend(rows, self.row_rate, by_row=True)
        plan = search.rows.plan(context.settings.sparsity, self.step != "linear")
        report = {"step": self.step, "objective": self.objective, **search.history}
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
        decoder, tokens, sparsity = context.decoder, context.tokens, context.settings.sparsity
        plan = settings.starting_plan(sparsity) or uniform_plan(decoder, sparsity)
        self.rows = RowSparsity.of(decoder, plan)
        begin = time.perf_counter()
        self._runner = BlockRunner.capture(decoder, tokens, context.batch)
        self._order = WeightOrder(decoder, context.settings.pruner)
        dense = torch.cat(self._order.compute(self._runner, context.progress))
        share = min(settings.windows, len(tokens)) / len(tokens)
        # Ranking takes two forward passes over all windows, an iteration three or four over some.
        self._seconds = (time.perf_counter() - begin) * 2 * share
        batch = min(context.batch, settings.windows)
        inputs = ObjectiveInputs(self._runner, self._order, tokens, batch, Band(settings.band))
        self._objective: Objective
        if settings.objective == "block_error":
            self._objective = BlockError(inputs)
        else:
            of_text = settings.objective == "cross_entropy"
            self._objective = OutputDivergence(
                inputs, dense, of_text=of_text, second_order=settings.second_order
            )
        self._minibatches = shuffled(len(tokens), settings.windows, context.settings.seed)

    def descend(self, iterations: int, rate: float, by_row: bool) -> None:
        """Run `iterations` and set the sparsities to the mean over the last ones."""
        settings, rows = self._settings, self.rows
        first_averaged = iterations - max(1, round(settings.averaged * iterations))
        mean: Tensor | None = None
        total = torch.zeros_like(rows.sparsity)
        values, variations = [], []
        unit = "row" if by_row else "linear"
        name = f"equal {unit}s, about {_duration(self._seconds * iterations)}"
        with self._context.progress.stage(name, iterations, "iteration") as step:
            for t in range(iterations):
                if settings.rerank and t and t % settings.rerank == 0:
                    self._order.compute(self._runner, self._context.progress, rows.counts())
                with repeatable(self._context.decoder.device):
                    margins = self._objective.margins(rows.counts(), next(self._minibatches))
                costs = rows.joined(margins.costs, by_row)
                past = settings.momentum
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


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
