"""NeuroAL: allocate block and row sparsity by aligning sparse with dense activations."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroal.errors import UserError, check_choice
from neuroal.execution.runner import BlockRunner
from neuroal.kernels.async_copy import moved_together
from neuroal.models.adapter import DecoderModel
from neuroal.models.families import patterns_of
from neuroal.pruners.base import Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.search.choose import SEARCHES, PriorResult, Search, SearchResult
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.criteria.base import Criterion
from neuroal.search.criteria.make import CRITERIA, make_criterion
from neuroal.search.cuda_graph import RecordedAlignment, recordable
from neuroal.search.evaluate import CPU, shared_search
from neuroal.sparsity.budget import Rules
from neuroal.sparsity.plan import Ratio, SparsityPlan, uniform_plan
from neuroal.sparsity.schedule import clip_blocks, densities_of_importances, plan_of_blocks
from neuroal.topups.base import Allocation, AllocationContext, RowRatios, TopUp

STEPS = ("block", "row", "both")
PAPER_LAMBDAS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25)
"""The paper's candidates for λ. The last is omitted at sparsities of at least 0.8."""
ADAPTIVE_SHARE = 0.6
"""Approximate time of an adaptive search divided by that of an exact one."""
SHORT_WINDOW = 256
"""Tokens per window on which an adaptive search estimates the criteria."""


@dataclass(frozen=True)
class NeuroAL(TopUp):
    """Choose λ, the increase of sparsity with depth, and λ_r, its variation between rows.

    The block step gives block b of B the sparsity s_b = 1 − d_b, with densities d falling linearly
    from about 1 − s + λ to 1 − s − λ (`block_ratios`). The row step then changes the ratio of each
    row by up to about ±λ_r, by the activation difference δ where its output is read (`row_plan`).
    Each step chooses the candidate with the lowest criterion (`AlignmentCriterion`), the first on
    ties. As in the paper, pruners that update weights use the block step only.

    Source: NeuroAL (arXiv 2411.07066), section 3.

    Args:
        step: ``block``, ``row`` (with uniform blocks), or ``both`` (block, then row).
        criterion: ``alignment`` (the paper), ``output_kl`` or ``perplexity`` (`make_criterion`).
            The δ of the row step always come from ``alignment``.
        block_candidates: candidates for λ; None: those of the paper for the target sparsity.
        row_candidates: candidates for λ_r; None: those of the paper, 0 and all λ's.
        search: ``exact`` evaluates every candidate. ``adaptive`` estimates the criteria of the
            candidates around the best on the first 256 tokens of every window and evaluates only
            possible winners. It mostly finds the same λ's, and equals ``exact`` for windows of at
            most 256 tokens. ``early_out`` of version 0.1 runs as ``exact``.
        rows_with_updates: also use the row step for pruners that update weights (SparseGPT,
            where every block of columns gets its share of a row's zeros, and ALPS). This is not in
            the paper.
    """

    step: str = "both"
    criterion: str = "alignment"
    block_candidates: list[float] | None = None
    row_candidates: list[float] | None = None
    search: str = "exact"
    rows_with_updates: bool = False

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.search == "early_out":
            warnings.warn(
                "topup.search=early_out is deprecated and runs as exact, with the same λ's; "
                "use topup.search=exact",
                FutureWarning,
                stacklevel=3,
            )
            object.__setattr__(self, "search", "exact")
        check_choice("topup.step", self.step, STEPS)
        check_choice("topup.criterion", self.criterion, CRITERIA)
        check_choice("topup.search", self.search, SEARCHES)
        if self.search != "exact" and self.criterion != "alignment":
            raise UserError(
                f"topup.search={self.search}: needs topup.criterion=alignment; "
                f"use topup.search=exact with criterion={self.criterion}"
            )
        _check_candidates("block_candidates", self.block_candidates)
        _check_candidates("row_candidates", self.row_candidates)

    def row_ratios(self, pruner: Pruner) -> RowRatios | None:
        if not self._has_rows(pruner):
            return None
        updates = pruner.updates_weights
        key = "topup.rows_with_updates=true" if updates else f"topup.step={self.step}"
        return RowRatios(key, "topup.step=block")

    def check(self, settings: PruningSettings) -> None:
        if self.step == "row" and not self._has_rows(settings.pruner):
            raise UserError(
                f"topup.step=row: pruner={settings.pruner.name} updates weights, for which the "
                "paper has no row step; use topup.step=block, or topup.rows_with_updates=true"
            )

    def search_passes(self, windows: int) -> float:
        share = 1.0 if self.search == "exact" else ADAPTIVE_SHARE
        return 2.0 * share * self._candidates()  # a candidate takes a dense and a sparse pass

    def search_prunings(self, pruner: Pruner) -> int:
        searched = self if self._has_rows(pruner) else dataclasses.replace(self, step="block")
        return searched._candidates()

    def brief(self) -> NeuroAL:
        blocks, rows = self.block_candidates or PAPER_LAMBDAS, self.row_candidates or PAPER_LAMBDAS
        return dataclasses.replace(
            self,
            search="exact",
            block_candidates=list(blocks[:2]),
            row_candidates=list(rows[:2]),
        )

    def _candidates(self) -> int:
        """Return the number of candidates of an exact search."""
        blocks = len(self.block_candidates or PAPER_LAMBDAS) if self.step != "row" else 1
        rows = len(self.row_candidates or (0.0, *PAPER_LAMBDAS)) if self.step != "block" else 0
        return blocks + rows

    def allocate(self, context: AllocationContext) -> Allocation:
        shared = shared_search(context, self.criterion)
        runner = BlockRunner.capture(context.decoder, context.tokens, context.batch)
        criterion = make_criterion(self.criterion, context, runner)
        search = Search(context, criterion, self._shortened(context, runner), shared)
        has_rows = self._has_rows(context.settings.pruner)
        report: dict[str, Any] = {"step": self.step, "criterion": self.criterion}
        if self.search != "exact":
            report["search"] = self.search
        if self.step == "row":
            plan = uniform_plan(context.decoder, context.settings.sparsity)
            budgets = context.budgets(plan)
            prior = PriorResult(budgets, criterion.evaluate(budgets))
            report["criterion_block"] = [prior.result.criterion]
        else:
            paper = PAPER_LAMBDAS if context.settings.sparsity < 0.8 else PAPER_LAMBDAS[:-1]
            lambdas = self.block_candidates or list(paper)
            blocks = search.choose(lambdas, block_plan, "search blocks", differences=has_rows)
            plan, budgets, prior = blocks.plan, blocks.budgets, blocks.prior()
            report |= blocks.report("block", lambdas)
        if has_rows:
            lambdas = self.row_candidates or [0.0, *PAPER_LAMBDAS]
            rows = self._search_rows(search, runner, plan, prior, lambdas)
            plan, budgets = rows.plan, rows.budgets
            report |= rows.report("row", lambdas)
        return Allocation(plan, report, budgets)

    def _search_rows(
        self,
        search: Search,
        runner: BlockRunner,
        start: SparsityPlan,
        prior: PriorResult,
        lambdas: Sequence[float],
    ) -> SearchResult:
        """Search λ_r for row ratios around those of `start`, whose result is `prior`."""
        settings = search.context.settings
        differences = prior.result.differences
        if differences is None:
            alignment = AlignmentCriterion(runner, settings.pruner, settings.rules)
            differences = alignment.evaluate(prior.budgets).differences
        assert differences is not None
        return search.choose(
            lambdas,
            partial(_row_plan_of, start, moved_together(differences, CPU)),
            "search rows",
            prior=None if settings.pruner.updates_weights else prior,
        )

    def _shortened(self, context: AllocationContext, runner: BlockRunner) -> Criterion | None:
        """Return the criterion on the first tokens of every window; None: not needed."""
        if self.search != "adaptive" or context.tokens.shape[1] <= SHORT_WINDOW:
            return None
        tokens = context.tokens[:, :SHORT_WINDOW]
        short = dataclasses.replace(context, tokens=tokens)
        criterion = make_criterion(self.criterion, short, runner.on(tokens, context.batch))
        if isinstance(criterion, AlignmentCriterion) and recordable(short):
            return RecordedAlignment(criterion)
        return criterion

    def _has_rows(self, pruner: Pruner) -> bool:
        return self.step != "block" and (self.rows_with_updates or not pruner.updates_weights)


def _check_candidates(key: str, candidates: Sequence[float] | None) -> None:
    if candidates == []:
        raise UserError(f"topup.{key}=[]: give at least one value, or null for those of the paper")
    for value in candidates or ():
        if not 0 <= value < 1:
            raise UserError(f"topup.{key}: {value} is out of range; must be at least 0 and below 1")


def block_plan(context: AllocationContext, lambda_: float) -> SparsityPlan:
    """Return the plan whose block sparsities increase linearly with depth, by ±λ around s."""
    decoder, settings = context.decoder, context.settings
    ratios = block_ratios(len(decoder), settings.sparsity, lambda_, settings.rules)
    return plan_of_blocks(decoder, dict(enumerate(ratios)), settings.sparsity)


def block_ratios(blocks: int, sparsity: float, lambda_: float, rules: Rules) -> list[float]:
    """Return the sparsity of each block for one candidate λ.

    The block numbers 1 … B are scaled to [0, 2λ] and shifted to the mean 1 − s. In descending order
    they are the densities, so early blocks are denser.
    """
    numbers = np.arange(1, blocks + 1, dtype=np.float64)
    densities = np.sort(densities_of_importances(numbers, sparsity, lambda_))[::-1]
    return clip_blocks(1 - densities, rules)


def row_plan(
    decoder: DecoderModel,
    start: SparsityPlan,
    differences: Mapping[str, Tensor],
    lambda_: float,
    rules: Rules,
) -> SparsityPlan:
    """Return a plan with row ratios around those of `start`; rows with a large δ are denser.

    s_r = 1 − (x_r − mean(x) + 1 − s), with s the linear's ratio and x the δ of its rows, scaled
    min–max to [0, 2λ_r]. Linears whose rows have no δ keep their ratio.

    Args:
        decoder: the model; its family must declare where each output is read.
        start: plan with one ratio per linear.
        differences: δ at the input of each linear, (cols,) on the CPU, by key.
        lambda_: λ_r.
        rules: ``reference`` clips to [0.01, 0.99]; ``exact`` leaves clipping to the budget.
    """
    if decoder.family is None:
        raise UserError(
            f"topup.step=row: model_type '{decoder.model_type}' does not declare which linear "
            "reads each output; use topup.step=block, or call "
            "neuroal.models.families.register_family with the consumers of "
            f"{patterns_of(linear.name for linear in decoder.linears[0])}"
        )
    ratios: dict[str, Ratio] = {}
    for linear in decoder:
        ratio = torch.as_tensor(start.ratios[linear.key], dtype=torch.float64)
        source = decoder.row_source(linear)
        delta = None
        if source:
            columns = differences[f"{linear.block}.{source}"].double()
            delta = decoder.family.by_row(linear.name, columns)
        ratios[linear.key] = _row_ratios(ratio, delta, lambda_, rules).expand(linear.rows)
    return SparsityPlan(ratios, start.sparsity)


def _row_plan_of(
    start: SparsityPlan,
    differences: Mapping[str, Tensor],
    context: AllocationContext,
    lambda_: float,
) -> SparsityPlan:
    return row_plan(context.decoder, start, differences, lambda_, context.settings.rules)


def _row_ratios(ratios: Tensor, delta: Tensor | None, lambda_: float, rules: Rules) -> Tensor:
    if delta is None:
        return ratios
    low, high = delta.aminmax()
    if low == high or (rules is Rules.REFERENCE and delta.sum() == 0):
        return ratios
    scaled = (delta - low) / (high - low) * lambda_ * 2
    sparsity = 1 - (scaled - scaled.mean() + (1 - ratios))
    return sparsity.clamp(0.01, 0.99) if rules is Rules.REFERENCE else sparsity
