"""Blocks that run one at a time compute the same as the whole model, for any architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.kernels.input_statistics import Need
from neuroal.models.adapter import DecoderModel
from neuroal.models.weights import swapped_weights
from tests.architectures import ARCHITECTURES, build


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 64, (5, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@torch.no_grad()
def test_single_blocks_reproduce_the_hidden_states_of_the_model(
    model_type: str, tokens: torch.Tensor
) -> None:
    changes, linears = ARCHITECTURES[model_type]
    model = build(model_type, **changes)
    decoder = DecoderModel(model)
    outputs: list[list[torch.Tensor]] = [[] for _ in decoder.blocks]
    for block, seen in zip(decoder.blocks, outputs, strict=True):
        block.register_forward_hook(
            lambda _m, _i, out, seen=seen: seen.append(
                out[0] if isinstance(out, tuple | list) else out
            )
        )
    model(tokens, use_cache=False)
    expected = [seen.pop() for seen in outputs]
    runner = BlockRunner.capture(decoder, tokens, batch=2)
    hidden = runner.embedded
    for index, reference in enumerate(expected):
        hidden = runner.run(index, hidden)
        torch.testing.assert_close(torch.cat(hidden), reference, atol=1e-5, rtol=1e-5)
    for block_linears in decoder.linears:
        assert [linear.name for linear in block_linears] == linears


@pytest.mark.parametrize("model_type", ["llama", "phi", "opt", "gemma2"])
def test_statistics_describe_the_inputs_of_the_linears(
    model_type: str, tokens: torch.Tensor
) -> None:
    decoder = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    runner = BlockRunner.capture(decoder, tokens, batch=2)
    inputs: dict[str, list[torch.Tensor]] = {}
    handles = [
        linear.module.register_forward_pre_hook(
            lambda _m, args, key=linear.key: inputs.setdefault(key, []).append(args[0])
        )
        for linear in decoder.linears[0]
    ]
    runner.run(0, runner.embedded)
    for handle in handles:
        handle.remove()
    needs = frozenset(Need)
    for outputs in (True, False):
        hidden, statistics = runner.measure(0, runner.embedded, needs, outputs=outputs)
        assert bool(hidden) is outputs
        for key, parts in inputs.items():
            x = torch.cat([part.reshape(-1, 24, part.shape[-1]) for part in parts]).double()
            flat = x.flatten(0, 1)
            torch.testing.assert_close(
                statistics[key].norm.double(),
                x.square().sum(1).mean(0).sqrt(),
                rtol=1e-5,
                atol=1e-6,
            )
            for statistic, expected in (
                (statistics[key].sums, x.sum(1)),
                (statistics[key].variances, x.var(1, correction=0)),
                (statistics[key].gram, flat.T @ flat),
            ):
                assert statistic is not None
                torch.testing.assert_close(statistic.double(), expected, rtol=1e-4, atol=1e-4)


def test_batch_size_does_not_change_statistics(tokens: torch.Tensor) -> None:
    decoder = DecoderModel(build("llama"))
    needs = frozenset(Need)
    by_batch_size = []
    for batch in (1, 2, 5):
        runner = BlockRunner.capture(decoder, tokens, batch)
        by_batch_size.append(runner.measure(0, runner.embedded, needs, outputs=False)[1])
    for other in by_batch_size[1:]:
        for key, statistics in by_batch_size[0].items():
            torch.testing.assert_close(other[key].norm, statistics.norm)
            torch.testing.assert_close(other[key].gram, statistics.gram)


def test_swapped_weights_are_restored_after_an_error(tokens: torch.Tensor) -> None:
    decoder = DecoderModel(build("llama"))
    linears = decoder.linears[0]
    before = [linear.weight.data_ptr() for linear in linears]
    with (
        pytest.raises(RuntimeError, match="inside"),
        swapped_weights(linears, {lin.key: torch.zeros_like(lin.weight) for lin in linears}),
    ):
        assert not any(linear.weight.any() for linear in linears)
        raise RuntimeError("inside")
    assert [linear.weight.data_ptr() for linear in linears] == before


def test_capture_does_not_change_the_model(tokens: torch.Tensor) -> None:
    model = build("llama")
    expected = model(tokens).logits
    BlockRunner.capture(DecoderModel(model), tokens, batch=2)
    torch.testing.assert_close(model(tokens).logits, expected, rtol=0, atol=0)


def test_infinite_activations_name_the_linear(tokens: torch.Tensor) -> None:
    model = build("llama")
    decoder = DecoderModel(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    runner = BlockRunner.capture(decoder, tokens, batch=5)
    hidden = runner.run(0, runner.embedded)
    with pytest.raises(UserError, match=r"1\.mlp\.down_proj"):
        runner.measure(1, hidden, frozenset({Need.NORM}), outputs=False)


def test_include_and_exclude_select_linears() -> None:
    model = build("llama")
    decoder = DecoderModel(model, include=["mlp.*"], exclude=["0.*", "*.down_proj"])
    assert {linear.key for linear in decoder} == {
        f"{block}.mlp.{name}_proj" for block in (1, 2, 3) for name in ("gate", "up")
    }
    with pytest.raises(UserError, match="leave no linear"):
        DecoderModel(model, exclude=["*"])


def test_blocks_must_be_a_module_list() -> None:
    model = build("llama")
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(UserError, match="ModuleList"):
        DecoderModel(model)
