"""ATP: block sparsities in an arithmetic progression, with the slope chosen by perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neuroal.errors import UserError, check_choice
from neuroal.execution.runner import BlockRunner
from neuroal.pruners.base import Pruner
from neuroal.search.choose import Search
from neuroal.search.criteria.make import CRITERIA, make_criterion
from neuroal.search.evaluate import shared_search
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.sparsity.schedule import plan_of_blocks
from neuroal.topups.base import Allocation, AllocationContext, TopUp

SLOPES = 25
"""Typical number of slopes, which depends on depth and sparsity."""


@dataclass(frozen=True)
class ATP(TopUp):
    """Set the sparsity of block b of B to s_b = s − β·(B − 1)/2 + β·b.

    Early blocks are denser. The candidates are β = `step`, 2·`step`, … up to
    min(2s, 2·(1 − s))/(B − 1), so that every s_b lies in [0, 1]. The candidate with the lowest
    criterion is chosen. The criterion is the perplexity of the pruned model on the search windows;
    the authors' code uses the test set of WikiText-2, on which it also reports results.

    Source: Huang et al., 2025 (arXiv 2502.14770), section 3, and its public code.

    Args:
        step: increment of β.
        criterion: ``perplexity`` (the paper), ``output_kl`` or ``alignment``.
    """

    step: float = 0.002
    criterion: str = "perplexity"

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise UserError(f"topup.step={self.step}: must be above 0 and at most 1")
        check_choice("topup.criterion", self.criterion, CRITERIA)

    def allocate(self, context: AllocationContext) -> Allocation:
        decoder, sparsity = context.decoder, context.settings.sparsity
        candidates = slopes(len(decoder), sparsity, self.step)
        if not candidates:
            return Allocation(uniform_plan(decoder, sparsity), {"beta": 0.0})
        shared = shared_search(context, self.criterion)
        runner = BlockRunner.capture(decoder, context.tokens, context.batch)
        criterion = make_criterion(self.criterion, context, runner)
        search = Search(context, criterion, shared=shared)
        best = search.choose(candidates, progression, "search slopes")
        report = {
            "beta": candidates[best.winner],
            "candidates": candidates,
            "criterion": self.criterion,
            "criteria": best.criteria,
        }
        return Allocation(best.plan, report, best.budgets)

    def search_passes(self, windows: int) -> float:
        return 2.0 * SLOPES

    def search_prunings(self, pruner: Pruner) -> int:
        return SLOPES


def slopes(blocks: int, sparsity: float, step: float) -> list[float]:
    """Return all candidates for β, ascending; none for a single block."""
    if blocks == 1:
        return []
    highest = min(2 * sparsity, 2 * (1 - sparsity)) / (blocks - 1)
    return [step * (index + 1) for index in range(int(highest / step + 1e-9))]


def progression(context: AllocationContext, beta: float) -> SparsityPlan:
    """Return the plan for one β."""
    blocks = len(context.decoder)
    first = context.settings.sparsity - beta * (blocks - 1) / 2
    ratios = {block: min(max(first + beta * block, 0.0), 1.0) for block in range(blocks)}
    return plan_of_blocks(context.decoder, ratios, context.settings.sparsity)
