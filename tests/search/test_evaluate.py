"""A search on several devices gives the results of one, to the last bit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest
import torch

from neuroal.execution.runner import BlockRunner
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices
from neuroal.parallel.replicated import replicated
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.criteria.base import CandidateResult
from neuroal.search.criteria.make import make_criterion
from neuroal.search.evaluate import (
    Candidates,
    SharedSearch,
    budgets_of,
    evaluated,
    on_other_device,
    prepared,
    shared_search,
)
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.budget import Rules
from neuroal.topups.atp import ATP
from neuroal.topups.base import TopUp
from neuroal.topups.neuroal import NeuroAL, block_plan
from tests.small_models import allocation_context, random_tokens, tiny_llama

CPU = torch.device("cpu")
SEARCHES: dict[str, tuple[TopUp, dict[str, object]]] = {
    "alignment": (NeuroAL(), {}),
    "several batches": (NeuroAL(), {"batch": 3}),
    "output_kl": (NeuroAL(criterion="output_kl", step="block"), {}),
    "perplexity": (NeuroAL(criterion="perplexity", row_candidates=[0.0, 0.1]), {}),
    "reference": (NeuroAL(), {"rules": Rules.REFERENCE}),
    "adaptive": (NeuroAL(search="adaptive"), {"tokens": random_tokens(2, 300), "batch": 2}),
    "magnitude": (NeuroAL(step="row"), {"pruner": Magnitude()}),
    "sparsegpt": (NeuroAL(), {"pruner": SparseGPT()}),
    "pattern": (NeuroAL(step="block"), {"sparsity": 0.5, "group": 4}),
    "atp": (ATP(step=0.05), {}),
}


@pytest.fixture(scope="module", params=[3, pytest.param(2, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest) -> Iterator[DecoderModel]:
    """Yield a small model on several devices."""
    decoder = tiny_llama(max_position_embeddings=512)
    with replicated(decoder.model, pick_devices(CPU, request.param)):
        yield decoder


def assert_equal(together: Allocation, alone: Allocation) -> None:
    """Check that all criteria, plans and budgets are equal to the last bit."""
    assert together.report == alone.report
    for key, ratio in alone.plan.ratios.items():
        assert torch.equal(torch.as_tensor(ratio), torch.as_tensor(together.plan.ratios[key]))
    assert together.budgets is not None
    assert alone.budgets is not None
    for key, budget in alone.budgets.items():
        assert torch.equal(budget.counts, together.budgets[key].counts)


@pytest.mark.parametrize("name", SEARCHES)
def test_several_devices_give_the_result_of_one(shared: DecoderModel, name: str) -> None:
    topup, changes = SEARCHES[name]
    before = {name: part.clone() for name, part in shared.model.state_dict().items()}
    alone = tiny_llama(max_position_embeddings=512)
    together = topup.allocate(allocation_context(shared, **changes))
    assert_equal(together, topup.allocate(allocation_context(alone, **changes)))
    for name, part in shared.model.state_dict().items():
        assert torch.equal(part, before[name])


def test_other_devices_evaluate_candidates(
    shared: DecoderModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations: list[int] = []
    evaluate = AlignmentCriterion.evaluate

    def recorded(self: AlignmentCriterion, budgets: object) -> object:
        evaluations.append(os.getpid())
        return evaluate(self, budgets)  # type: ignore[arg-type]

    monkeypatch.setattr(AlignmentCriterion, "evaluate", recorded)
    report = NeuroAL(step="block").allocate(allocation_context(shared)).report
    assert 0 < len(evaluations) < len(report["candidates_block"])


def test_budgets_are_prepared_in_order() -> None:
    context = allocation_context(tiny_llama())
    plans = [block_plan(context, lambda_) for lambda_ in (0.05, 0.1)]
    budgets = list(budgets_of(context, [lambda plan=plan: plan for plan in plans]))  # type: ignore[misc]
    for plan, budget in zip(plans, budgets, strict=True):
        for key, expected in context.budgets(plan).items():
            assert torch.equal(budget[key].counts, expected.counts)


def test_candidates_are_evaluated_in_the_order_of_their_indices() -> None:
    context = allocation_context(tiny_llama(), Wanda())

    class Ratio:
        def evaluate(self, budgets):  # type: ignore[no-untyped-def]
            return CandidateResult(budgets["0.self_attn.q_proj"].ratio)

    candidates = Candidates(block_plan, [0.05, 0.1, 0.2], [2, 0])
    results = dict(evaluated(context, Ratio(), candidates, candidates.order))
    assert list(results) == [2, 0]
    assert results[2].criterion < results[0].criterion


def sent(
    criteria: list[float], monkeypatch: pytest.MonkeyPatch, *, differences: bool
) -> dict[int, bool]:
    """Return which of a device's results are sent with their δ, for these criteria."""
    context = allocation_context(tiny_llama())
    remaining = iter(criteria)

    def evaluate(_self: object, _budgets: object) -> CandidateResult:
        return CandidateResult(next(remaining), {"0.self_attn.q_proj": torch.ones(2)})

    monkeypatch.setattr(AlignmentCriterion, "evaluate", evaluate)
    indices = list(range(len(criteria)))
    candidates = Candidates(block_plan, [0.05] * len(criteria), indices, differences)
    search = SharedSearch("alignment", context.settings, context.tokens, context.batch)
    positions = iter([*indices, len(criteria)])
    results = on_other_device(context.decoder, lambda: next(positions), search, candidates, 1)
    return {index: result.differences is not None for index, result in results}


def test_only_differences_that_may_be_used_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    criteria = [3.0, 2.0, 2.0, math.nan, 4.0, 1.0]
    assert sent(criteria, monkeypatch, differences=True) == dict(
        enumerate([True, True, False, True, False, True])
    )
    assert not any(sent(criteria, monkeypatch, differences=False).values())


def test_other_devices_prepare_a_search_once(shared: DecoderModel) -> None:
    context = allocation_context(shared)
    search = shared_search(context, "alignment")
    assert search is not None
    assert shared_search(allocation_context(tiny_llama()), "alignment") is None
    decoder = context.decoder
    first = prepared(decoder, search)
    assert prepared(decoder, search)[1] is first[1]
    again = SharedSearch("alignment", context.settings, context.tokens, context.batch)
    assert prepared(decoder, again)[1] is not first[1]


@pytest.mark.parametrize("criterion", ["alignment", "perplexity"])
def test_another_device_evaluates_the_candidates_that_it_claims(criterion: str) -> None:
    context = allocation_context(tiny_llama(num_hidden_layers=2))
    candidates = Candidates(block_plan, [0.05, 0.1, 0.2], [2, 0, 1], differences=True)
    search = SharedSearch(criterion, context.settings, context.tokens, context.batch)
    positions = iter([0, 2, 3])
    results = dict(on_other_device(context.decoder, lambda: next(positions), search, candidates, 2))
    runner = BlockRunner.capture(context.decoder, context.tokens, context.batch)
    own = make_criterion(criterion, context, runner)
    expected = dict(evaluated(context, own, candidates, [2, 1]))
    assert {key: result.criterion for key, result in results.items()} == {
        key: result.criterion for key, result in expected.items()
    }
    for key, result in results.items():
        assert (result.differences is None) == (expected[key].differences is None)
