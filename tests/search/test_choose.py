"""Searches: the winning candidate, the evaluated candidates, and the report."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.pruners.base import Pruner
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.search.choose import PriorResult, Search, SearchResult
from neuroal.search.context import AllocationContext
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.criteria.base import Budgets, CandidateResult
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.sparsity.patterns import Pattern
from neuroal.topups.neuroal import NeuroAL, block_plan
from tests.small_models import allocation_context, random_tokens, tiny_llama

CONTEXT = allocation_context(tiny_llama())
REFERENCE = allocation_context(CONTEXT.decoder, rules=Rules.REFERENCE)
CANDIDATES = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25]


class FixedCriterion:
    """A criterion with a fixed value for each candidate, which records the order of evaluation."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.order: list[int] = []
        self._index = {
            block_plan(CONTEXT, x).ratios["0.self_attn.q_proj"]: i for i, x in enumerate(CANDIDATES)
        }

    def evaluate(self, budgets: Budgets) -> CandidateResult:
        ratio = budgets["0.self_attn.q_proj"].ratio
        assert isinstance(ratio, float)
        index = self._index[ratio]
        self.order.append(index)
        return CandidateResult(self.values[index])


def search(
    criterion: FixedCriterion,
    shortened: FixedCriterion | None = None,
    prior: PriorResult | None = None,
    context: AllocationContext = CONTEXT,
) -> SearchResult:
    choose = Search(context, criterion, shortened).choose
    return choose(CANDIDATES, block_plan, "search", prior)


def prior_of_first(criterion: float, estimate: float | None = None) -> PriorResult:
    budgets = CONTEXT.budgets(block_plan(CONTEXT, CANDIDATES[0]))
    return PriorResult(budgets, CandidateResult(criterion), estimate)


values = st.lists(
    st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]),
    min_size=len(CANDIDATES),
    max_size=len(CANDIDATES),
)


@given(values)
def test_the_lowest_criterion_wins_and_the_first_on_ties(criteria: list[float]) -> None:
    result = search(FixedCriterion(criteria))
    assert result.winner == criteria.index(min(criteria))
    assert result.criteria == criteria
    assert result.plan.ratios == block_plan(CONTEXT, CANDIDATES[result.winner]).ratios


@given(values)
def test_the_winners_budgets_follow_its_plan(criteria: list[float]) -> None:
    result = search(FixedCriterion(criteria))
    assert PriorResult(result.budgets, result.result).covers(CONTEXT.budgets(result.plan))


@given(values, st.integers(0, len(CANDIDATES) - 1))
def test_under_reference_rules_nan_wins_only_as_the_first_candidate(
    criteria: list[float], position: int
) -> None:
    criteria[position] = math.nan
    winner = search(FixedCriterion(criteria), context=REFERENCE).winner
    assert (winner == 0) or position != 0
    assert winner != position or position == 0


def test_adaptive_evaluates_only_candidates_that_may_win_by_their_estimates() -> None:
    smooth = [100 * (1 + 4 * (x - 0.12) ** 2) for x in CANDIDATES]
    criterion = FixedCriterion([5.0, 4.0, 1.0, 0.0, 2.0, 6.0])
    result = search(criterion, FixedCriterion(smooth))
    near = [i for i, estimate in enumerate(smooth) if estimate <= 100.5]
    assert sorted(criterion.order) == near
    assert len(near) < len(CANDIDATES)
    assert [i for i, value in enumerate(result.criteria) if value is not None] == near
    # Every fourth candidate is estimated, then those at distances 2 and 1 from the best.
    assert result.estimates is not None
    assert [i for i, estimate in enumerate(result.estimates) if estimate is None] == [5]
    noisy = FixedCriterion([5.0, 4.0, 1.0, 0.0, 2.0, 6.0])
    search(noisy, FixedCriterion([value + (3 if i % 2 else 0) for i, value in enumerate(smooth)]))
    assert len(noisy.order) > len(near)


def test_a_candidate_with_a_prior_result_is_not_evaluated_again() -> None:
    criterion = FixedCriterion([5.0, 4.0, 1.0, 0.0, 2.0, 6.0])
    result = search(criterion, prior=prior_of_first(0.5))
    assert criterion.order == [1, 2, 3, 4, 5]
    assert result.criteria[0] == 0.5


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, True),
        ({"ratio": 0.3}, True),
        ({"counts": torch.tensor([1, 2])}, False),
        ({"ratio": torch.tensor([0.5, 0.5])}, False),  # prunes other columns on ties
        ({"pattern": Pattern(2, 4)}, False),
    ],
)
def test_a_prior_result_holds_for_equal_masks_only(changes: dict[str, Any], covered: bool) -> None:
    budget = LinearBudget(torch.tensor([2, 2]), 0.5, Rules.REFERENCE)
    budgets = {"0.a": budget, "0.b": dataclasses.replace(budget, **changes)}
    prior = PriorResult(dict.fromkeys(budgets, budget), CandidateResult(0.0))
    assert prior.covers(budgets) == covered


def test_a_prior_estimate_is_not_computed_again() -> None:
    smooth = [100 * (1 + 4 * (x - 0.12) ** 2) for x in CANDIDATES]
    criterion, shortened = FixedCriterion([5.0, 4.0, 1.0, 0.0, 2.0, 6.0]), FixedCriterion(smooth)
    result = search(criterion, shortened, prior_of_first(5.0, smooth[0]))
    alone = search(FixedCriterion(criterion.values), FixedCriterion(smooth))
    assert result.estimates == alone.estimates
    assert 0 not in shortened.order
    assert 0 not in criterion.order
    assert (result.winner, result.criteria[0]) == (3, 5.0)


def test_the_row_step_reuses_the_result_of_the_block_step() -> None:
    report = NeuroAL(block_candidates=[0.1], row_candidates=[0.0]).allocate(CONTEXT).report
    assert report["criterion_row"] == report["criterion_block"]


@pytest.mark.parametrize(("pruner", "evaluations"), [(Wanda(), 1), (SparseGPT(), 2)])
def test_only_a_pruner_that_updates_weights_evaluates_the_winning_blocks_again(
    monkeypatch: pytest.MonkeyPatch, pruner: Pruner, evaluations: int
) -> None:
    """Its masks by row differ from those by block, even at equal counts."""
    evaluate, evaluated = AlignmentCriterion.evaluate, []

    def counted(criterion: AlignmentCriterion, budgets: Budgets) -> CandidateResult:
        evaluated.append(budgets)
        return evaluate(criterion, budgets)

    monkeypatch.setattr(AlignmentCriterion, "evaluate", counted)
    context = allocation_context(CONTEXT.decoder, pruner)
    topup = NeuroAL(block_candidates=[0.1], row_candidates=[0.0], rows_with_updates=True)
    topup.allocate(context)
    assert len(evaluated) == evaluations


@pytest.mark.parametrize(("seqlen", "estimated"), [(256, False), (257, True)])
def test_estimates_use_the_first_256_tokens(seqlen: int, estimated: bool) -> None:
    context = allocation_context(CONTEXT.decoder, tokens=random_tokens(1, seqlen))
    runner = Windows()
    criterion = NeuroAL(search="adaptive")._shortened(context, cast(BlockRunner, runner))
    assert (criterion is not None) == estimated
    assert runner.seen == [(1, 256)] * estimated


class Windows:
    """A runner that records the shape of the windows that it would run."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def on(self, tokens: Tensor, batch: int) -> Windows:
        self.seen.append(tuple(tokens.shape))
        return self


def long_windows() -> AllocationContext:
    decoder = tiny_llama(max_position_embeddings=300)
    return allocation_context(decoder, tokens=random_tokens(2, 272))


def test_the_report_names_an_adaptive_search() -> None:
    report = NeuroAL(search="adaptive").allocate(long_windows()).report
    assert report["search"] == "adaptive"
    assert any(estimate is None for estimate in report["ranking_block"])
    assert len(report["ranking_block"]) == 14
    assert "search" not in NeuroAL().allocate(long_windows()).report


def test_adaptive_is_exact_on_short_windows() -> None:
    adaptive = dict(NeuroAL(search="adaptive").allocate(CONTEXT).report)
    assert adaptive.pop("search") == "adaptive"
    assert adaptive == NeuroAL().allocate(CONTEXT).report


def test_early_out_runs_exact_and_warns_once() -> None:
    with pytest.warns(FutureWarning, match="use topup.search=exact") as warned:
        topup = NeuroAL(search="early_out")
    assert len(warned) == 1
    assert topup == NeuroAL()
    assert topup.allocate(CONTEXT).report == NeuroAL().allocate(CONTEXT).report


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search": "early"}, "must be one of exact, adaptive"),
        ({"search": "adaptive", "criterion": "perplexity"}, "topup.search=exact"),
    ],
)
def test_errors_name_invalid_searches(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NeuroAL(**settings)  # type: ignore[arg-type]
