"""NeuroAL: block and row sparsity by alignment of dense and sparse activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError, check_choice
from neuroal.models.adapter import DecoderModel
from neuroal.plan import Ratio, SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.topups.alignment import Alignment, AlignmentCriterion
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.criteria import CRITERIA, make_criterion
from neuroal.topups.outcome import Criterion, Outcome
from neuroal.topups.recorded import RecordedAlignment, recordable
from neuroal.topups.schedule import clip_blocks, plan_of_blocks, spread_densities
from neuroal.topups.search import SEARCHES, Known, choose
from neuroal.topups.uniform import uniform_plan

STEPS = ("block", "row", "both")
SPREADS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25)
"""The paper's candidates for λ; from sparsity 0.8 on without the last."""
RANKED_TOKENS = 256
"""An adaptive search ranks candidates on that many tokens of every window."""


@dataclass(frozen=True)
class NeuroAL(TopUp):
    """Picks λ (how block sparsity grows with depth), then λ_r (how it differs between rows).

    Source: NeuroAL (arXiv 2411.07066), section 3. Of all candidates, the one whose sparse
    activations are best aligned with the dense ones wins (`AlignmentCriterion`), the first on
    ties. The authors give pruners that update weights the block step only.

    Args:
        step: ``block``, ``row`` (on uniform blocks) or ``both``, one on top of the other.
        criterion: ``alignment`` (the paper), ``output_kl`` or ``perplexity`` (`make_criterion`);
            rows are ordered by alignment in any case.
        block_candidates: λ's; None takes the paper's for the sparsity asked for.
        row_candidates: λ_r's; None takes the paper's: 0 and all λ's.
        search: ``exact`` measures every candidate; ``early_out`` gives one up as soon as it has
            lost (the same λ's, but no criteria of the losers); ``adaptive`` ranks those around
            the best on the first 256 tokens of every window and measures only those that may win
            by their rank (mostly the same λ's; windows that are no longer get ``early_out``).
        rows_with_updates: take the row step under pruners that update weights (SparseGPT), too;
            in every block of columns a row gives up its share. Not the authors' method.

    Sample YAML::

        _target_: neuroal.topups.neuroal.NeuroAL
        step: both
        criterion: alignment
        block_candidates: null
        row_candidates: null
        search: exact
        rows_with_updates: false
    """

    step: str = "both"
    criterion: str = "alignment"
    block_candidates: list[float] | None = None
    row_candidates: list[float] | None = None
    search: str = "exact"
    rows_with_updates: bool = False

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("topup.step", self.step, STEPS)
        check_choice("topup.criterion", self.criterion, CRITERIA)
        check_choice("topup.search", self.search, SEARCHES)
        if self.search != "exact" and self.criterion != "alignment":
            raise UserError(
                f"topup.search={self.search}: only topup.criterion=alignment grows block by block; "
                f"use topup.search=exact with criterion={self.criterion}"
            )
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
        if not pruner.updates_weights or self.step == "block":
            return
        name = type(pruner).__name__.lower()
        if self.step == "row" and not self.rows_with_updates:
            raise UserError(
                f"topup.step=row: pruner={name} updates weights and gets no row step from the "
                "authors; use topup.step=block, or topup.rows_with_updates=true"
            )
        if self.rows_with_updates and rules is Rules.REFERENCE:
            raise UserError(
                f"topup.rows_with_updates=true: the authors' code has no row plans for "
                f"pruner={name}; use rules=exact"
            )

    def allocate(self, context: AllocationContext) -> Allocation:
        if self.search != "exact":
            context = dataclasses.replace(context, devices=())  # one after the other
        runner = BlockRunner.capture(context.subject, context.tokens, context.batch)
        criterion = make_criterion(self.criterion, context, runner)
        ranking = self._ranking(context, runner)
        report: dict[str, Any] = {"step": self.step, "criterion": self.criterion}
        if self.search != "exact":
            report["search"] = self.search
        best: Outcome
        rank: float | None = None
        if self.step == "row":
            plan = uniform_plan(context.subject, context.sparsity)
            best = criterion.measure(context.allot(plan))
            report["criterion_block"] = [best.criterion]
        else:
            spreads = self.block_candidates or _paper_candidates(context.sparsity)
            blocks = choose(
                context,
                criterion,
                spreads,
                lambda x: block_plan(context, x),
                "search blocks",
                search=self.search,
                ranking=ranking,
            )
            plan, best, rank = blocks.plan, blocks.outcome, blocks.rank
            report |= blocks.report("block", spreads)
        if self._has_rows(context.pruner):
            start, spreads = plan, self.row_candidates or [0.0, *SPREADS]
            zeros = context.allot(plan)
            known = Known(zeros, best, rank)
            if not isinstance(best, Alignment):
                alignment = AlignmentCriterion(runner, context.pruner, context.rules)
                best = alignment.measure(zeros)
            delta = {key: found.cpu() for key, found in best.differences.items()}
            rows = choose(
                context,
                criterion,
                spreads,
                lambda x: row_plan(context.subject, start, delta, x, context.rules),
                "search rows",
                search=self.search,
                known=None if context.pruner.updates_weights else known,
                ranking=ranking,
            )
            plan = rows.plan
            report |= rows.report("row", spreads)
        return Allocation(plan, report)

    def _ranking(self, context: AllocationContext, runner: BlockRunner) -> Criterion | None:
        """The criterion on the first tokens of every window, for an adaptive search."""
        if self.search != "adaptive" or context.tokens.shape[1] <= RANKED_TOKENS:
            return None
        tokens = context.tokens[:, :RANKED_TOKENS]
        short = dataclasses.replace(context, tokens=tokens)
        criterion = make_criterion(self.criterion, short, runner.on(tokens, context.batch))
        if isinstance(criterion, AlignmentCriterion) and recordable(short):
            return RecordedAlignment(criterion)
        return criterion

    def _has_rows(self, pruner: Pruner) -> bool:
        return self.step != "block" and (self.rows_with_updates or not pruner.updates_weights)


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
        differences: δ at the input of each linear, on the CPU: (cols,).
        spread: λ_r; rows are spread over 2·λ_r about the linear's ratio.
        rules: the reference clips to [0.01, 0.99]; ``exact`` leaves that to the budget.
    """
    ratios: dict[str, Ratio] = {}
    for linear in subject:
        ratio = torch.as_tensor(start.ratios[linear.key], dtype=torch.float64)
        source = subject.row_source(linear)
        delta = differences[f"{linear.block}.{source}"].double() if source else None
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
