"""Fused experts on a GPU: the masks of a CPU, and the speed of a dense block."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import neuroal
from neuroal.execution.compile import CompiledBlocks
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.pruners import batches
from neuroal.pruners.prune_model import prune_model
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import Rules, linear_budgets
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress
from tests.architectures import EXPERTS, build
from tests.routed import routed, with_lists
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


DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FAMILIES = {
    "mixtral": False,
    "gpt_oss": False,
    "qwen2_moe": False,
    "deepseek_v3": False,
    "mixtral in lists": True,
}
"""Name of a model → whether its experts are a list of modules."""


def model_of(name: str, dtype: torch.dtype) -> Any:
    model = routed(name.partition(" ")[0])
    return (with_lists(model) if FAMILIES[name] else model).to(dtype)


def shares_of_differing(model: Any, other: Any, **settings: Any) -> tuple[float, float]:
    """Prune both models; return the share of differing entries of their masks and the sparsity."""
    tokens = random_tokens(8, 48)
    results = [
        neuroal.prune(each, tokens, topup="uniform", sparsity=0.5, **settings)
        for each in (model, other)
    ]
    masks = zip(results[0].masks.values(), results[1].masks.values(), strict=True)
    differing = sum(int((mask != same).sum()) for mask, same in masks)
    return differing / sum(mask.numel() for mask in results[0].masks.values()), results[1].sparsity


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_experts_are_pruned_on_a_gpu_as_on_a_cpu(name: str, dtype: torch.dtype) -> None:
    cpu, gpu = model_of(name, dtype), model_of(name, dtype).cuda()
    assert shares_of_differing(cpu, gpu, pruner="magnitude") == (0, pytest.approx(0.5, abs=1e-4))
    for linear, other in zip(DecoderModel(cpu), DecoderModel(gpu), strict=True):
        assert torch.equal(linear.weight, other.weight.cpu()), linear.key
    cpu, gpu = model_of(name, dtype), model_of(name, dtype).cuda()
    differing, sparsity = shares_of_differing(cpu, gpu, pruner="wanda")
    # Where 16-bit router scores round differently, a token reaches another expert.
    assert differing <= (0.005 if dtype == torch.float32 else 0.05)
    assert sparsity == pytest.approx(0.5, abs=1e-4)


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "multiflow"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_on_a_gpu_has_the_bytes_of_single_experts(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, pruner: str
) -> None:
    tokens, digests = random_tokens(8, 48), []
    models = [model_of(name, dtype).cuda() for _ in range(2)]
    for model, most in zip(models, (1, batches.MOST_WEIGHTS), strict=True):
        monkeypatch.setattr(batches, "MOST_WEIGHTS", most)
        result = neuroal.prune(model, tokens, pruner=pruner, topup="uniform", sparsity=0.5)
        digests.append(result.masks.digests())
    assert digests[0] == digests[1]
    for linear, other in zip(*map(DecoderModel, models), strict=True):
        assert torch.equal(linear.weight, other.weight), linear.key


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_dense_blocks_beside_experts_may_be_compiled(dtype: torch.dtype) -> None:
    """The first block of DeepSeek-V3 has no experts, so it alone is compiled."""
    masks = []
    for least_work in (float("inf"), 0):
        decoder = DecoderModel(model_of("deepseek_v3", dtype).cuda())
        compiled = CompiledBlocks(least_work=least_work)
        decoder.memo["compiled"] = compiled
        budgets = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT)
        batch, tokens = AdaptiveBatch("prune", 8, divides=True), random_tokens(8, 48)
        masks.append(prune_model(decoder, Wanda(), budgets, tokens, batch, QuietProgress()))
        assert (compiled.runs > 0) == (least_work == 0)
    differing = sum(int((mask != masks[1][key]).sum()) for key, mask in masks[0].items())
    assert differing <= 0.05 * decoder.numel


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
