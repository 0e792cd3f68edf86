"""Replayed candidates have the same criteria, also if recording fails."""

from __future__ import annotations

import pytest
import torch

from neuroal.execution.runner import BlockRunner
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.cuda_graph import RecordedAlignment, Work, recordable
from neuroal.topups.neuroal import block_plan, row_plan
from tests.small_models import allocation_context, tiny_llama

CONTEXT = allocation_context(tiny_llama())
PLANS = [block_plan(CONTEXT, lambda_) for lambda_ in (0.01, 0.1, 0.2)]


def plain_criterion() -> AlignmentCriterion:
    runner = BlockRunner.capture(CONTEXT.decoder, CONTEXT.tokens, CONTEXT.batch)
    return AlignmentCriterion(runner, CONTEXT.settings.pruner, CONTEXT.settings.rules)


def replay_of(work: Work) -> Work:
    """Return a substitute for a graph: it reads the memory of `work` and writes to one tensor."""
    result = work()

    def replay() -> torch.Tensor:
        return result.copy_(work())

    return replay


def test_a_replay_evaluates_the_given_candidate() -> None:
    plain, recorded = plain_criterion(), RecordedAlignment(plain_criterion(), replay_of)
    first = plain.evaluate(CONTEXT.budgets(PLANS[0]))
    rows = row_plan(CONTEXT.decoder, PLANS[1], first.differences, 0.1, CONTEXT.settings.rules)
    before = [linear.weight.clone() for linear in CONTEXT.decoder]
    for plan in (*PLANS, rows, PLANS[0]):
        budgets = CONTEXT.budgets(plan)
        assert recorded.evaluate(budgets).criterion == plain.evaluate(budgets).criterion
    for linear, weight in zip(CONTEXT.decoder, before, strict=True):
        assert torch.equal(linear.weight, weight)


def test_candidates_are_evaluated_without_a_graph_if_recording_fails() -> None:
    def refuse(_work: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    plain, recorded = plain_criterion(), RecordedAlignment(plain_criterion(), refuse)
    with pytest.warns(UserWarning, match=r"slower: operation not permitted .*capturing$"):
        criteria = [recorded.evaluate(CONTEXT.budgets(plan)).criterion for plan in PLANS]
    assert criteria == [plain.evaluate(CONTEXT.budgets(plan)).criterion for plan in PLANS]


def test_a_cpu_model_is_not_recordable() -> None:
    assert not recordable(CONTEXT)
    if torch.cuda.is_available():
        decoder = tiny_llama()
        decoder.model.to("cuda", torch.float16)
        assert recordable(allocation_context(decoder))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_cuda_graph_gives_the_same_criteria() -> None:
    decoder = tiny_llama()
    decoder.model.to("cuda", torch.float16)
    context = allocation_context(decoder)
    runner = BlockRunner.capture(decoder, context.tokens, context.batch)
    plain = AlignmentCriterion(runner, context.settings.pruner, context.settings.rules)
    recorded = RecordedAlignment(
        AlignmentCriterion(runner, context.settings.pruner, context.settings.rules)
    )
    for plan in (*PLANS, PLANS[0]):
        budgets = context.budgets(plan)
        assert recorded.evaluate(budgets).criterion == plain.evaluate(budgets).criterion
