"""NeuroAL: block and row sparsity by alignment of dense and sparse activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.plan import Ratio, SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.topups.alignment import Alignment, AlignmentCriterion
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.schedule import clip_blocks, plan_of_blocks, spread_densities
from neuroal.topups.uniform import uniform_plan

STEPS = ("block", "row", "both")
SPREADS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25)
"""The paper's candidates for λ; from sparsity 0.8 on without the last."""


@dataclass(frozen=True)
class NeuroAL(TopUp):
    """Picks λ (how block sparsity grows with depth), then λ_r (how it differs between rows).

    Source: NeuroAL (arXiv 2411.07066), section 3. Of all candidates, the one whose sparse
    activations are best aligned with the dense ones wins (`AlignmentCriterion`), the first on
    ties. Pruners that update weights get the block step only.

    Args:
        step: ``block``, ``row`` (on uniform blocks) or ``both``, one on top of the other.
        block_candidates: λ's; None takes the paper's for the sparsity asked for.
        row_candidates: λ_r's; None takes the paper's: 0 and all λ's.

    Sample YAML::

        _target_: neuroal.topups.neuroal.NeuroAL
        step: both
        block_candidates: null
        row_candidates: null
    """

    step: str = "both"
    block_candidates: list[float] | None = None
    row_candidates: list[float] | None = None

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.step not in STEPS:
            raise UserError(f"topup.step={self.step}: must be one of {', '.join(STEPS)}")
        _check_candidates("block_candidates", self.block_candidates)
        _check_candidates("row_candidates", self.row_candidates)

    def check(
        self, pruner: Pruner, sparsity: float, rules: Rules, group: int | None = None
    ) -> None:
        if group is not None and self.step != "block":
            raise UserError(
                f"topup.step={self.step}: an N:M pattern (sparsity.of={group}) has one N a block; "
                "use topup.step=block"
            )
        if self.step == "row" and pruner.updates_weights:
            raise UserError(
                f"topup.step=row: not for pruner={type(pruner).__name__.lower()}, which updates "
                "weights column by column; use topup.step=block"
            )

    def allocate(self, context: AllocationContext) -> Allocation:
        runner = BlockRunner.capture(context.subject, context.tokens, context.batch)
        search = _Search(context, AlignmentCriterion(runner, context.pruner, context.rules))
        report: dict[str, Any] = {"step": self.step}
        rows = self.step != "block" and not context.pruner.updates_weights
        if self.step == "row":
            plan = uniform_plan(context.subject, context.sparsity)
            best = search.measure(plan)
            report["criterion_block"] = [best.criterion]
        else:
            candidates = self.block_candidates or _paper_candidates(context.sparsity)
            with context.progress.stage("search blocks", len(candidates), "candidate") as step:
                winner, plan, best, criteria = search.choose(
                    candidates, lambda spread: block_plan(context, spread), step.advance
                )
            report |= _report("block", candidates, criteria, winner)
        if rows:
            candidates = self.row_candidates or [0.0, *SPREADS]
            start, differences = plan, best.differences
            with context.progress.stage("search rows", len(candidates), "candidate") as step:
                winner, plan, best, criteria = search.choose(
                    candidates,
                    lambda spread: row_plan(
                        context.subject, start, differences, spread, context.rules
                    ),
                    step.advance,
                )
            report |= _report("row", candidates, criteria, winner)
        return Allocation(plan, report)


def _paper_candidates(sparsity: float) -> list[float]:
    return list(SPREADS if sparsity < 0.8 else SPREADS[:-1])


def _check_candidates(key: str, candidates: Sequence[float] | None) -> None:
    if candidates is None:
        return
    if not candidates:
        raise UserError(f"topup.{key}=[]: name at least one, or null for the paper's")
    for value in candidates:
        if not 0 <= value < 1:
            raise UserError(f"topup.{key}: {value} is out of range; must be at least 0, below 1")


def _report(
    step: str, candidates: Sequence[float], criteria: Sequence[float], winner: int
) -> dict[str, Any]:
    return {
        f"lambda_{step}": candidates[winner],
        f"candidates_{step}": list(candidates),
        f"criterion_{step}": list(criteria),
    }


@dataclass(frozen=True, eq=False)
class _Search:
    context: AllocationContext
    criterion: AlignmentCriterion

    def measure(self, plan: SparsityPlan) -> Alignment:
        return self.criterion.measure(self.context.allot(plan))

    def choose(
        self,
        candidates: Sequence[float],
        make: Callable[[float], SparsityPlan],
        advance: Callable[..., None],
    ) -> tuple[int, SparsityPlan, Alignment, list[float]]:
        """The best candidate: its index, plan and outcome, and all criteria."""
        criteria: list[float] = []
        winner = 0
        for index, spread in enumerate(candidates):
            plan = make(spread)
            outcome = self.measure(plan)
            criteria.append(outcome.criterion)
            # A NaN (rules=reference) is never smaller, so the first candidate stays.
            if index == 0 or outcome.criterion < criteria[winner]:
                winner, best_plan, best = index, plan, outcome
            advance(1, criterion=outcome.criterion)
        return winner, best_plan, best, criteria


def block_plan(context: AllocationContext, spread: float) -> SparsityPlan:
    """Block sparsity that grows linearly with depth, by ±`spread` about s."""
    ratios = block_ratios(len(context.subject), context.sparsity, spread, context.rules)
    return plan_of_blocks(context.subject, dict(enumerate(ratios)), context.sparsity)


def block_ratios(blocks: int, sparsity: float, spread: float, rules: Rules) -> list[float]:
    """Sparsity of each block for candidate λ = `spread`.

    Ranks 1 … B are scaled to [0, 2λ], centred and shifted to mean 1 − s; sorted downwards they
    are the densities, so early blocks are denser.
    """
    ranks = np.arange(1, blocks + 1, dtype=np.float64)
    densities = np.sort(spread_densities(ranks, sparsity, spread))[::-1]
    return clip_blocks(1 - densities, rules)


def row_plan(
    subject: DecoderModel,
    start: SparsityPlan,
    differences: Mapping[str, Tensor],
    spread: float,
    rules: Rules,
) -> SparsityPlan:
    """Row sparsities about the linears' ratios of `start`: rows with a large δ stay denser.

    Args:
        subject: the model, which knows where each row's output is read.
        start: one ratio for each linear.
        differences: δ at the input of each linear: (cols,).
        spread: λ_r; rows are spread over 2·λ_r about the linear's ratio.
        rules: the reference clips to [0.01, 0.99]; ``exact`` leaves that to the budget.
    """
    ratios: dict[str, Ratio] = {}
    for linear in subject:
        ratio = torch.as_tensor(start.ratios[linear.key], dtype=torch.float64)
        source = subject.row_source(linear)
        delta = differences[f"{linear.block}.{source}"].double().cpu() if source else None
        ratios[linear.key] = _row_ratios(ratio.expand(linear.rows), delta, spread, rules)
    return SparsityPlan(ratios, start.sparsity)


def _row_ratios(ratios: Tensor, delta: Tensor | None, spread: float, rules: Rules) -> Tensor:
    if delta is None or float(delta.max()) == float(delta.min()):
        return ratios.clone()
    if rules is Rules.REFERENCE and float(delta.sum()) == 0:
        return ratios.clone()
    scaled = (delta - delta.min()) / (delta.max() - delta.min()) * spread * 2
    sparsity = 1 - (scaled - scaled.mean() + (1 - ratios))
    return sparsity.clamp(0.01, 0.99) if rules is Rules.REFERENCE else sparsity
