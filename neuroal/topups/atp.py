"""ATP: block sparsity as an arithmetic progression whose step is searched by perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError, check_choice
from neuroal.plan import SparsityPlan
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.criteria import CRITERIA, make_criterion
from neuroal.topups.schedule import plan_of_blocks
from neuroal.topups.search import choose
from neuroal.topups.uniform import uniform_plan


@dataclass(frozen=True)
class ATP(TopUp):
    """Sparsity of block b of B: s − β·(B − 1)/2 + β·b, so early blocks are denser.

    β = `step`, 2·`step`, … as long as no block leaves [0, 1], that is up to
    min(2s, 2·(1 − s))/(B − 1); the one with the lowest criterion wins. The criterion is the
    perplexity of the pruned model, here on the search windows; the authors' code takes WikiText-2's
    test set, which is what the result is later reported on.

    Source: Huang et al., 2025 (arXiv 2502.14770), section 3, and its public code.

    Args:
        step: increment of β.
        criterion: ``perplexity`` (the paper), ``output_kl`` or ``alignment``.

    Sample YAML::

        _target_: neuroal.topups.atp.ATP
        step: 0.002
        criterion: perplexity
    """

    step: float = 0.002
    criterion: str = "perplexity"

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise UserError(f"topup.step={self.step}: must be above 0 and at most 1")
        check_choice("topup.criterion", self.criterion, CRITERIA)

    def allocate(self, context: AllocationContext) -> Allocation:
        candidates = slopes(len(context.subject), context.sparsity, self.step)
        if not candidates:
            return Allocation(uniform_plan(context.subject, context.sparsity), {"beta": 0.0})
        runner = BlockRunner.capture(context.subject, context.tokens, context.batch)
        criterion = make_criterion(self.criterion, context, runner)
        found = choose(
            context, criterion, candidates, lambda beta: progression(context, beta), "search slopes"
        )
        return Allocation(
            found.plan,
            {
                "beta": candidates[found.winner],
                "candidates": candidates,
                "criterion": self.criterion,
                "criteria": found.criteria,
            },
        )


def slopes(blocks: int, sparsity: float, step: float) -> list[float]:
    """All legal β's, ascending; none for a single block."""
    if blocks == 1:
        return []
    highest = min(2 * sparsity, 2 * (1 - sparsity)) / (blocks - 1)
    return [step * (index + 1) for index in range(int(highest / step + 1e-9))]


def progression(context: AllocationContext, beta: float) -> SparsityPlan:
    """The plan of one β."""
    blocks = len(context.subject)
    first = context.sparsity - beta * (blocks - 1) / 2
    ratios = {block: min(max(first + beta * block, 0.0), 1.0) for block in range(blocks)}
    return plan_of_blocks(context.subject, ratios, context.sparsity)
