"""Fused experts on a GPU: the masks of a CPU, and the speed of a dense block."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import neuroal
from neuroal.models.adapter import DecoderModel
from tests.architectures import EXPERTS, build
from tests.small_models import random_tokens

WIDE = {
    "vocab_size": 64,
    "hidden_size": 4096,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
}
LEAST_SPEED = 0.5
"""Weights per second of experts, as a share of those of a dense block with equal work."""


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "multiflow", "sparsegpt"])
@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss", "gpt2"])
def test_a_gpu_prunes_views_of_weights_as_a_cpu_does(model_type: str, pruner: str) -> None:
    tokens = random_tokens(8, 48)
    results = [
        neuroal.prune(
            build(model_type, **EXPERTS.get(model_type, {}), num_hidden_layers=2).to(device),
            tokens,
            pruner=pruner,
            topup="owl",
            sparsity=0.5,
        )
        for device in ("cpu", "cuda")
    ]
    entries = sum(mask.numel() for mask in results[0].masks.values())
    differing = sum(
        int((mask != results[1].masks[key]).sum()) for key, mask in results[0].masks.items()
    )
    assert differing <= 0.005 * entries  # sums round differently
    assert results[0].sparsity == results[1].sparsity


def seconds_and_weights(model: Any) -> tuple[float, int]:
    """Prune `model` by Wanda on 8 × 2048 tokens, and once more for the time."""
    tokens = random_tokens(8, 2048)
    for _ in range(2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        neuroal.prune(model, tokens, pruner="wanda", topup="uniform", sparsity=0.5, batch=8)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    return seconds, DecoderModel(model).numel


@pytest.mark.slow
def test_experts_are_pruned_at_half_the_speed_of_a_dense_block_or_more() -> None:
    speeds = []
    for model_class, config in (
        (LlamaForCausalLM, LlamaConfig(**WIDE, intermediate_size=2 * 14336)),
        (MixtralForCausalLM, MixtralConfig(**WIDE, intermediate_size=14336)),
    ):
        with torch.device("cuda"):
            model = model_class(config).to(torch.bfloat16).eval()
        seconds, weights = seconds_and_weights(model)
        speeds.append(weights / seconds)
        print(f"{model_class.__name__}: {weights / 1e9:.2f}e9 weights in {seconds:.3f} s")
        del model
        torch.cuda.empty_cache()
    assert speeds[1] >= LEAST_SPEED * speeds[0]
