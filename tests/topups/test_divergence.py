"""Ranks, the output divergence and the costs of rows equal what plain PyTorch gives."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuroal.blocks import BlockRunner, leaf_weights, swapped_weights
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.masks import lowest_per_row
from neuroal.pruners.wanda import Wanda
from neuroal.topups.block_error import BlockError
from neuroal.topups.divergence import Band, OutputDivergence
from neuroal.topups.ranks import Ranks, ranks_of
from neuroal.tracking import QuietProgress
from tests.test_blocks import ARCHITECTURES, build
from tests.tiny import random_tokens, tiny_llama

TOKENS = random_tokens(5, 24)
CHOSEN = [3, 0, 4]


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_ranks_prune_what_sorting_prunes(rows: int, cols: int, values: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, values + 1, (rows, cols), generator=generator).float()  # many ties
    counts = torch.randint(0, cols + 1, (rows,), generator=generator)
    assert torch.equal(ranks_of(scores) < counts[:, None], lowest_per_row(scores, counts))


def counts_of(subject: DecoderModel, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        lin.key: torch.randint(2, lin.cols - 2, (lin.rows,), generator=generator) for lin in subject
    }


def objective_of(subject: DecoderModel, batch: int, **options: bool) -> OutputDivergence:
    runner = BlockRunner.capture(subject, TOKENS, batch)
    ranks = Ranks(subject, Magnitude())
    dense = torch.cat(ranks.measure(runner, QuietProgress()))
    return OutputDivergence(runner, ranks, TOKENS, dense, batch, Band(), **options)


def plainly(
    subject: DecoderModel, counts: dict[str, Tensor], of_text: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """Objective and −G·W by one backward pass through a masked copy of the whole model."""
    sparse = DecoderModel(copy.deepcopy(subject.model).double())
    tokens = TOKENS[CHOSEN]
    for linear in sparse:
        mask = lowest_per_row(linear.module.weight.data.abs().float(), counts[linear.key])
        linear.module.weight.data.masked_fill_(mask, 0)
        linear.module.weight.requires_grad_(True)
    logits = sparse.model(tokens).logits
    if of_text:
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )
    else:
        with torch.no_grad():
            dense = copy.deepcopy(subject.model).double()(tokens).logits.log_softmax(-1)
        loss = (dense.exp() * (dense - logits.log_softmax(-1))).sum(-1).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    costs = {}
    for ours, theirs in zip(subject, sparse, strict=True):
        assert theirs.module.weight.grad is not None
        costs[ours.key] = -theirs.module.weight.grad * ours.module.weight.data
    return float(loss.detach()), costs


@pytest.mark.parametrize("of_text", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("graphs", [0, 2, 4])
def test_the_costs_are_those_of_one_whole_backward_pass(
    of_text: bool, batch: int, graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.topups.divergence._graphs_that_fit", lambda *_: graphs)
    monkeypatch.setattr("neuroal.topups.divergence.LOGIT_BYTES", {"cpu": 64 * 4 * 7})
    subject = tiny_llama()
    counts = counts_of(subject)
    value, gains = plainly(subject, counts, of_text)
    found = objective_of(subject, batch, of_text=of_text).margins(counts, CHOSEN)
    assert found.value == pytest.approx(value, rel=1e-4)
    for linear in subject:
        ranks = ranks_of(linear.module.weight.data.abs())
        width = max(4, linear.cols // 10)
        k = counts[linear.key][:, None]
        inside = (ranks >= k - width) & (ranks < k + width)
        expected = (gains[linear.key] * inside).sum(1) / inside.sum(1)
        torch.testing.assert_close(found.costs[linear.key].double(), expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("model_type", ["opt", "phi", "gemma2", "gpt_neox", "mistral"])
def test_any_architecture_has_costs(model_type: str) -> None:
    subject = DecoderModel(build(model_type, **ARCHITECTURES.get(model_type, ({}, None))[0]))
    counts = counts_of(subject)
    value, gains = plainly(subject, counts)
    objective = objective_of(subject, 2)
    found = objective.margins(counts, CHOSEN)
    assert found.value == pytest.approx(value, rel=1e-4)
    assert objective.value(counts, CHOSEN) == pytest.approx(value, rel=1e-4)
    assert found.costs.keys() == gains.keys()
    assert any(float(cost.abs().max()) > 0 for cost in found.costs.values())


def test_costs_leave_the_model_as_it_was() -> None:
    subject = tiny_llama()
    before = [(linear.module.weight, linear.module.weight.clone()) for linear in subject]
    objective_of(subject, 2).margins(counts_of(subject), CHOSEN)
    for linear, (parameter, values) in zip(subject, before, strict=True):
        assert linear.module.weight is parameter
        assert torch.equal(parameter, values)


def test_the_dense_model_has_no_divergence_and_ranks_follow_sparse_inputs() -> None:
    subject = tiny_llama()
    none = {linear.key: torch.zeros(linear.rows, dtype=torch.long) for linear in subject}
    assert objective_of(subject, 2).value(none, CHOSEN) == pytest.approx(0, abs=1e-6)
    runner, ranks = BlockRunner.capture(subject, TOKENS, 5), Ranks(subject, Wanda())
    ranks.measure(runner, QuietProgress())
    dense = ranks.masked(subject.linears[-1], counts_of(subject))
    ranks.measure(runner, QuietProgress(), counts_of(subject))
    sparse = ranks.masked(subject.linears[-1], counts_of(subject))
    assert any(not torch.equal(dense[key], sparse[key]) for key in dense)


def test_an_overflow_is_met_by_a_smaller_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny_llama()
    counts = counts_of(subject)
    objective = objective_of(subject, 5)
    expected = objective.margins(counts, CHOSEN)
    backward = torch.autograd.grad

    def overflowing(*args: object, **options: object) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = backward(*args, **options)  # type: ignore[arg-type]
        return tuple(
            part if part is None or float(part.abs().max()) < 1e-3 else part / 0 for part in found
        )

    monkeypatch.setattr("torch.autograd.grad", overflowing)
    found = objective.margins(counts, CHOSEN)
    for key, cost in found.costs.items():
        torch.testing.assert_close(cost, expected.costs[key], rtol=1e-3, atol=1e-7)


def test_block_error_is_zero_for_the_dense_model_and_its_costs_are_its_gradient() -> None:
    subject = tiny_llama()
    runner, ranks = BlockRunner.capture(subject, TOKENS, 5), Ranks(subject, Magnitude())
    ranks.measure(runner, QuietProgress())
    objective = BlockError(runner, ranks, TOKENS, 2, Band())
    none = {linear.key: torch.zeros(linear.rows, dtype=torch.long) for linear in subject}
    assert objective.margins(none, CHOSEN).value == 0
    counts = counts_of(subject)
    found = objective.margins(counts, CHOSEN)
    # The last linear's costs by hand: from the chain's input of its block, masks as they are.
    chosen = runner.on(TOKENS[CHOSEN], 5)
    hidden, errors = chosen.embedded, []
    for index, linears in enumerate(subject.linears):
        truth, before = chosen.run(index, hidden)[0], hidden
        with swapped_weights(linears, ranks.masked(linears, counts)):
            hidden = chosen.run(index, hidden)
        errors.append((hidden[0] - truth).square().sum() / truth.square().sum())
    assert found.value == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
    hidden, last = before, subject.linears[-1]
    with leaf_weights(last, ranks.masked(last, counts)) as leaves:
        output = chosen.call(len(subject) - 1, 0, hidden[0])
        error = (output - truth).square().sum() / truth.square().sum() / len(subject)
        gradient = torch.autograd.grad(error, leaves[-1])[0]
    width = max(4, last[-1].cols // 10)
    expected = ranks.costs(last[-1], gradient, counts[last[-1].key], width)
    torch.testing.assert_close(found.costs[last[-1].key], expected, rtol=1e-3, atol=1e-8)
