"""Weight orders, the output divergence and marginal costs equal those of plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.block_error import BlockError
from neuroal.gradients.divergence import GRAPH_SHARE, GRAPH_TENSORS, _graphs_that_fit
from neuroal.gradients.objective import Band, MarginalCosts, ObjectiveInputs
from neuroal.gradients.weight_order import WeightOrder, ranks_of
from neuroal.kernels.selection import lowest_per_row
from neuroal.models.adapter import DecoderModel
from neuroal.models.weights import leaf_weights, swapped_weights
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.wanda import Wanda
from neuroal.tracking import QuietProgress
from tests.architectures import ARCHITECTURES, EXPERTS, build
from tests.objectives import TOKENS, objective_of
from tests.small_models import tiny_llama

CHOSEN = [3, 0, 4]


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_ranks_and_sorting_give_equal_masks(rows: int, cols: int, values: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, values + 1, (rows, cols), generator=generator).float()  # many ties
    counts = torch.randint(0, cols + 1, (rows,), generator=generator)
    assert torch.equal(ranks_of(scores) < counts[:, None], lowest_per_row(scores, counts))


def counts_of(decoder: DecoderModel, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        lin.key: torch.randint(2, lin.cols - 2, (lin.rows,), generator=generator) for lin in decoder
    }


def plain_margins(
    decoder: DecoderModel, counts: dict[str, Tensor], of_text: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """Return objective and −G·W from one backward pass through a masked copy of the model."""
    sparse = DecoderModel(copy.deepcopy(decoder.model).double())
    tokens = TOKENS[CHOSEN]
    for linear in sparse:
        mask = lowest_per_row(linear.weight.abs().float(), counts[linear.key])
        linear.weight.masked_fill_(mask, 0)
        linear.module.weight.requires_grad_(True)
    logits = sparse.model(tokens).logits
    if of_text:
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )
    else:
        with torch.no_grad():
            dense = copy.deepcopy(decoder.model).double()(tokens).logits.log_softmax(-1)
        loss = (dense.exp() * (dense - logits.log_softmax(-1))).sum(-1).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    costs = {}
    for ours, theirs in zip(decoder, sparse, strict=True):
        assert theirs.module.weight.grad is not None
        costs[ours.key] = -theirs.module.weight.grad * ours.weight
    return float(loss.detach()), costs


@pytest.mark.parametrize("of_text", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("graphs", [0, 2, 4])
def test_costs_equal_those_of_one_backward_pass_through_the_model(
    of_text: bool, batch: int, graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.gradients.divergence._graphs_that_fit", lambda *_: graphs)
    monkeypatch.setattr("neuroal.gradients.head.LOGIT_BYTES", {"cpu": 64 * 4 * 7})
    decoder = tiny_llama()
    counts = counts_of(decoder)
    value, gains = plain_margins(decoder, counts, of_text)
    margins = objective_of(decoder, batch, of_text=of_text).margins(counts, CHOSEN)
    assert margins.value == pytest.approx(value, rel=1e-4)
    for linear in decoder:
        ranks = ranks_of(linear.weight.abs())
        width = max(4, linear.cols // 10)
        k = counts[linear.key][:, None]
        inside = (ranks >= k - width) & (ranks < k + width)
        expected = (gains[linear.key] * inside).sum(1) / inside.sum(1)
        torch.testing.assert_close(
            margins.costs[linear.key].double(), expected, rtol=1e-3, atol=1e-8
        )


@pytest.mark.parametrize("model_type", ["opt", "phi", "gemma2", "gpt_neox", "mistral"])
def test_every_architecture_has_costs(model_type: str) -> None:
    decoder = DecoderModel(build(model_type, **ARCHITECTURES.get(model_type, ({}, None))[0]))
    counts = counts_of(decoder)
    value, gains = plain_margins(decoder, counts)
    objective = objective_of(decoder, 2)
    margins = objective.margins(counts, CHOSEN)
    assert margins.value == pytest.approx(value, rel=1e-4)
    assert objective.value(counts, CHOSEN) == pytest.approx(value, rel=1e-4)
    assert margins.costs.keys() == gains.keys()
    assert any(float(cost.abs().max()) > 0 for cost in margins.costs.values())


def test_computing_costs_does_not_change_the_model() -> None:
    decoder = tiny_llama()
    before = [(linear.module.weight, linear.weight.clone()) for linear in decoder]
    objective_of(decoder, 2).margins(counts_of(decoder), CHOSEN)
    for linear, (parameter, values) in zip(decoder, before, strict=True):
        assert linear.module.weight is parameter
        assert torch.equal(parameter, values)


def test_the_dense_model_has_no_divergence_and_ranks_depend_on_sparse_inputs() -> None:
    decoder = tiny_llama()
    none = {linear.key: torch.zeros(linear.rows, dtype=torch.long) for linear in decoder}
    assert objective_of(decoder, 2).value(none, CHOSEN) == pytest.approx(0, abs=1e-6)
    runner, order = BlockRunner.capture(decoder, TOKENS, 5), WeightOrder(decoder, Wanda())
    order.compute(runner, QuietProgress())
    dense = order.masked(decoder.linears[-1], counts_of(decoder))
    order.compute(runner, QuietProgress(), counts_of(decoder))
    sparse = order.masked(decoder.linears[-1], counts_of(decoder))
    assert any(not torch.equal(dense[key], sparse[key]) for key in dense)


def test_an_overflow_reduces_the_scale_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny_llama()
    counts = counts_of(decoder)
    objective = objective_of(decoder, 5)
    expected = objective.margins(counts, CHOSEN)
    backward = torch.autograd.grad

    def overflowing(*args: object, **options: object) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = backward(*args, **options)  # type: ignore[arg-type]
        return tuple(
            part if part is None or float(part.abs().max()) < 1e-3 else part / 0
            for part in gradients
        )

    monkeypatch.setattr("torch.autograd.grad", overflowing)
    margins = objective.margins(counts, CHOSEN)
    for key, cost in margins.costs.items():
        torch.testing.assert_close(cost, expected.costs[key], rtol=1e-3, atol=1e-7)


def test_block_error_is_zero_for_the_dense_model_and_costs_equal_its_gradient() -> None:
    decoder = tiny_llama()
    runner, order = BlockRunner.capture(decoder, TOKENS, 5), WeightOrder(decoder, Magnitude())
    order.compute(runner, QuietProgress())
    objective = BlockError(ObjectiveInputs(runner, order, TOKENS, 2, Band()))
    none = {linear.key: torch.zeros(linear.rows, dtype=torch.long) for linear in decoder}
    assert objective.margins(none, CHOSEN).value == 0
    counts = counts_of(decoder)
    margins = objective.margins(counts, CHOSEN)
    # Compute the costs of the last linear from the sparse input of its block.
    chosen = runner.on(TOKENS[CHOSEN], 5)
    hidden, errors = chosen.embedded, []
    for index, linears in enumerate(decoder.linears):
        dense, before = chosen.run(index, hidden)[0], hidden
        with swapped_weights(linears, order.masked(linears, counts)):
            hidden = chosen.run(index, hidden)
        errors.append((hidden[0] - dense).square().sum() / dense.square().sum())
    assert margins.value == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
    hidden, last = before, decoder.linears[-1]
    with leaf_weights(last, order.masked(last, counts)) as leaves:
        output = chosen.call(len(decoder) - 1, 0, hidden[0])
        error = (output - dense).square().sum() / dense.square().sum() / len(decoder)
        gradient = torch.autograd.grad(error, leaves[-1])[0]
    width = max(4, last[-1].cols // 10)
    expected = order.costs(last[-1], gradient, counts[last[-1].key], width)
    torch.testing.assert_close(margins.costs[last[-1].key], expected, rtol=1e-3, atol=1e-8)


def test_gradients_that_never_become_finite_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, scales = objective_of(tiny_llama(num_hidden_layers=1), 5), []

    def overflowing(*_: object) -> MarginalCosts:
        scales.append(objective._scale)
        return MarginalCosts(0.0, {"0.a": torch.tensor([torch.inf])})

    monkeypatch.setattr(objective, "_margins", overflowing)
    with pytest.raises(UserError, match=r"model\.dtype=bfloat16 or float32"):
        objective.margins({}, CHOSEN)
    assert scales == [16.0**-step for step in range(6)]  # down to 2^-20


@pytest.mark.parametrize("graphs", [0, 1, 4])
def test_blocks_with_a_stored_graph_run_forward_once(
    graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.gradients.divergence._graphs_that_fit", lambda *_: graphs)
    run, runs = BlockRunner.run, []

    def counted(self: BlockRunner, index: int, hidden: Sequence[Tensor]) -> list[Tensor]:
        runs.append(index)
        return run(self, index, hidden)

    decoder = tiny_llama()
    objective = objective_of(decoder, 5)
    monkeypatch.setattr(BlockRunner, "run", counted)
    objective.margins(counts_of(decoder), CHOSEN)
    assert runs == list(range(4 - graphs))  # the graphs of the last blocks are stored


def test_graphs_of_weights_and_activations_take_a_share_of_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, tokens = tiny_llama(), 10
    outputs = sum(linear.rows for linear in decoder.linears[0])
    block = 4 * (decoder.numel // 4 + GRAPH_TENSORS * tokens * outputs)  # float32
    for blocks, graphs in ((0.9, 0), (1.1, 1), (2.9, 2), (3.1, 3), (9.0, 4)):
        free = blocks * block / GRAPH_SHARE
        monkeypatch.setattr("neuroal.gradients.divergence.free_memory", lambda _, free=free: free)
        assert _graphs_that_fit(decoder, tokens) == graphs


def test_experts_without_tokens_cost_nothing_in_the_block_error() -> None:
    decoder = DecoderModel(build("mixtral", **{**EXPERTS["mixtral"], "num_hidden_layers": 1}))
    tokens = TOKENS[:1, :1]  # reaches two of four experts
    runner, order = BlockRunner.capture(decoder, tokens, 1), WeightOrder(decoder, Magnitude())
    order.compute(runner, QuietProgress())
    objective = BlockError(ObjectiveInputs(runner, order, tokens, 1, Band()))
    costs = objective.margins(counts_of(decoder), [0]).costs
    idle = [key for key, cost in costs.items() if not bool(cost.any())]
    assert len({key.split(".")[-2] for key in idle if ".experts." in key}) >= 2
