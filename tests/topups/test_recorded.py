"""Candidates by replay: the same criteria, and none is lost if recording fails."""

from __future__ import annotations

import pytest
import torch

from neuroal.blocks import BlockRunner
from neuroal.topups.alignment import AlignmentCriterion
from neuroal.topups.neuroal import block_plan, row_plan
from neuroal.topups.recorded import RecordedAlignment, Work, recordable
from tests.tiny import allocation_context, tiny_llama

CONTEXT = allocation_context(tiny_llama())
PLANS = [block_plan(CONTEXT, spread) for spread in (0.01, 0.1, 0.2)]


def plain_criterion() -> AlignmentCriterion:
    runner = BlockRunner.capture(CONTEXT.subject, CONTEXT.tokens, CONTEXT.batch)
    return AlignmentCriterion(runner, CONTEXT.pruner, CONTEXT.rules)


def again(work: Work) -> Work:
    """Stands for a graph: it knows nothing but the memory that `work` reads, and writes to one."""
    result = work()

    def replay() -> torch.Tensor:
        return result.copy_(work())

    return replay


def test_a_replay_measures_the_candidate_it_is_given() -> None:
    plain, recorded = plain_criterion(), RecordedAlignment(plain_criterion(), again)
    first = plain.measure(CONTEXT.allot(PLANS[0]))
    rows = row_plan(CONTEXT.subject, PLANS[1], first.differences, 0.1, CONTEXT.rules)
    before = [linear.module.weight.clone() for linear in CONTEXT.subject]
    for plan in (*PLANS, rows, PLANS[0]):
        zeros = CONTEXT.allot(plan)
        assert recorded.measure(zeros).criterion == plain.measure(zeros).criterion
    for linear, weight in zip(CONTEXT.subject, before, strict=True):
        assert torch.equal(linear.module.weight, weight)


def test_what_cannot_be_recorded_is_measured_as_usual() -> None:
    def refuse(_work: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    plain, recorded = plain_criterion(), RecordedAlignment(plain_criterion(), refuse)
    with pytest.warns(
        UserWarning, match=r"ranked more slowly: operation not permitted .*capturing$"
    ):
        found = [recorded.measure(CONTEXT.allot(plan)).criterion for plan in PLANS]
    assert found == [plain.measure(CONTEXT.allot(plan)).criterion for plan in PLANS]


def test_a_cpu_records_nothing() -> None:
    assert not recordable(CONTEXT)
    if torch.cuda.is_available():
        subject = tiny_llama()
        subject.model.to("cuda", torch.float16)
        assert recordable(allocation_context(subject))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_cuda_graph_measures_what_launches_do() -> None:
    subject = tiny_llama()
    subject.model.to("cuda", torch.float16)
    context = allocation_context(subject)
    runner = BlockRunner.capture(subject, context.tokens, context.batch)
    plain = AlignmentCriterion(runner, context.pruner, context.rules)
    recorded = RecordedAlignment(AlignmentCriterion(runner, context.pruner, context.rules))
    for plan in (*PLANS, PLANS[0]):
        zeros = context.allot(plan)
        assert recorded.measure(zeros).criterion == plain.measure(zeros).criterion
