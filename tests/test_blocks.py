"""Replayed blocks compute what the model itself computes, whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from neuroal.blocks import BlockRunner, swapped_weights
from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.statistics import Need

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 8}
LLAMA_LINEARS = [
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
NEOX_LINEARS = [
    "attention.query_key_value",
    "attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
]
ARCHITECTURES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "llama": ({}, LLAMA_LINEARS),
    "mistral": ({**GROUPED, "sliding_window": 8}, LLAMA_LINEARS),
    "phi": (
        {},
        [
            *(f"self_attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "dense")),
            "mlp.fc1",
            "mlp.fc2",
        ],
    ),
    "opt": (
        {"ffn_dim": 48, "word_embed_proj_dim": 32},
        [*(f"self_attn.{n}_proj" for n in ("k", "v", "q", "out")), "fc1", "fc2"],
    ),
    "qwen2": (
        {**GROUPED, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        LLAMA_LINEARS,
    ),
    "qwen3": (HEADS, LLAMA_LINEARS),
    "gemma": (HEADS, LLAMA_LINEARS),
    "gemma2": ({**HEADS, "sliding_window": 8}, LLAMA_LINEARS),
    "gemma3_text": ({**HEADS, "sliding_window": 8, "sliding_window_pattern": 2}, LLAMA_LINEARS),
    "stablelm": (GROUPED, LLAMA_LINEARS),
    "gpt_neox": ({}, NEOX_LINEARS),
    "olmo": ({}, LLAMA_LINEARS),
    "olmo2": ({}, LLAMA_LINEARS),
    "phi3": (
        GROUPED,
        ["self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"],
    ),
    "cohere": (GROUPED, LLAMA_LINEARS),
    "granite": (GROUPED, LLAMA_LINEARS),
    "smollm3": (GROUPED, LLAMA_LINEARS),
    "starcoder2": (
        GROUPED,
        [*(f"self_attn.{n}_proj" for n in ("q", "k", "v", "o")), "mlp.c_fc", "mlp.c_proj"],
    ),
    "falcon": (
        {"num_kv_heads": 4, "ffn_hidden_size": 48},
        [
            "self_attention.query_key_value",
            "self_attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ],
    ),
    "bloom": (
        {"n_layer": 4, "n_head": 4},
        [
            "self_attention.query_key_value",
            "self_attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ],
    ),
}


def build(model_type: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**COMMON, **changes})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 64, (5, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@torch.no_grad()
def test_replayed_blocks_equal_the_models_hidden_states(
    model_type: str, tokens: torch.Tensor
) -> None:
    changes, linears = ARCHITECTURES[model_type]
    model = build(model_type, **changes)
    subject = DecoderModel(model)
    outputs: list[list[torch.Tensor]] = [[] for _ in subject.blocks]
    for block, seen in zip(subject.blocks, outputs, strict=True):
        block.register_forward_hook(
            lambda _m, _i, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    model(tokens, use_cache=False)
    expected = [seen.pop() for seen in outputs]
    runner = BlockRunner.capture(subject, tokens, batch=2)
    hidden = runner.embedded
    for index, reference in enumerate(expected):
        hidden = runner.run(index, hidden)
        torch.testing.assert_close(torch.cat(hidden), reference, atol=1e-5, rtol=1e-5)
    for block_linears in subject.linears:
        assert [linear.name for linear in block_linears] == linears


@pytest.mark.parametrize("model_type", ["llama", "phi", "opt", "gemma2"])
def test_statistics_are_those_of_the_linears_inputs(model_type: str, tokens: torch.Tensor) -> None:
    subject = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    runner = BlockRunner.capture(subject, tokens, batch=2)
    inputs: dict[str, list[torch.Tensor]] = {}
    handles = [
        linear.module.register_forward_pre_hook(
            lambda _m, args, key=linear.key: inputs.setdefault(key, []).append(args[0])
        )
        for linear in subject.linears[0]
    ]
    runner.run(0, runner.embedded)
    for handle in handles:
        handle.remove()
    needs = frozenset(Need)
    for outputs in (True, False):
        hidden, found = runner.measure(0, runner.embedded, needs, outputs=outputs)
        assert bool(hidden) is outputs
        for key, parts in inputs.items():
            x = torch.cat([part.reshape(-1, 24, part.shape[-1]) for part in parts]).double()
            flat = x.flatten(0, 1)
            torch.testing.assert_close(
                found[key].norm.double(), x.square().sum(1).mean(0).sqrt(), rtol=1e-5, atol=1e-6
            )
            for ours, theirs in (
                (found[key].sums, x.sum(1)),
                (found[key].variances, x.var(1, correction=0)),
                (found[key].gram, flat.T @ flat),
            ):
                assert ours is not None
                torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_batch_size_does_not_change_statistics(tokens: torch.Tensor) -> None:
    subject = DecoderModel(build("llama"))
    needs = frozenset(Need)
    found = []
    for batch in (1, 2, 5):
        runner = BlockRunner.capture(subject, tokens, batch)
        found.append(runner.measure(0, runner.embedded, needs, outputs=False)[1])
    for other in found[1:]:
        for key, statistics in found[0].items():
            torch.testing.assert_close(other[key].norm, statistics.norm)
            torch.testing.assert_close(other[key].gram, statistics.gram)


def test_swapped_weights_are_given_back(tokens: torch.Tensor) -> None:
    subject = DecoderModel(build("llama"))
    linears = subject.linears[0]
    before = [linear.module.weight.data_ptr() for linear in linears]
    with (
        pytest.raises(RuntimeError, match="inside"),
        swapped_weights(linears, {lin.key: torch.zeros_like(lin.module.weight) for lin in linears}),
    ):
        assert not any(linear.module.weight.any() for linear in linears)
        raise RuntimeError("inside")
    assert [linear.module.weight.data_ptr() for linear in linears] == before


def test_capture_leaves_the_model_as_it_was(tokens: torch.Tensor) -> None:
    model = build("llama")
    expected = model(tokens).logits
    BlockRunner.capture(DecoderModel(model), tokens, batch=2)
    torch.testing.assert_close(model(tokens).logits, expected, rtol=0, atol=0)


def test_infinite_activations_name_the_linear(tokens: torch.Tensor) -> None:
    model = build("llama")
    subject = DecoderModel(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    runner = BlockRunner.capture(subject, tokens, batch=5)
    hidden = runner.run(0, runner.embedded)
    with pytest.raises(UserError, match=r"1\.mlp\.down_proj"):
        runner.measure(1, hidden, frozenset({Need.NORM}), outputs=False)


def test_weights_that_are_no_linear_are_named(tokens: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"0\.attn\.c_attn\.weight.*Conv1D"):
        DecoderModel(build("gpt2", n_layer=2, n_head=4))
    with pytest.raises(UserError, match=r"experts"):
        DecoderModel(build("mixtral", num_key_value_heads=2, num_local_experts=2))


def test_include_and_exclude_choose_linears() -> None:
    model = build("llama")
    only = DecoderModel(model, include=["mlp.*"], exclude=["0.*", "*.down_proj"])
    assert {linear.key for linear in only} == {
        f"{block}.mlp.{name}_proj" for block in (1, 2, 3) for name in ("gate", "up")
    }
    with pytest.raises(UserError, match="leave no linear"):
        DecoderModel(model, include=["nothing"])


def test_blocks_must_be_a_module_list() -> None:
    class Odd(nn.Module):
        pass

    model = build("llama")
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(UserError, match="ModuleList"):
        DecoderModel(model)
