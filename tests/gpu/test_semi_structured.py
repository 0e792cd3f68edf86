"""A model pruned to 2:4 gives the same output through the GPU's sparse kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured
from transformers import PreTrainedModel

import neuroal
from neuroal.models.adapter import DecoderModel
from tests.small_models import random_tokens, tiny_llama

ROUNDING = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest accepted difference, relative to the largest logit."""
SIZES = {
    "vocab_size": 512,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "max_position_embeddings": 128,
}
"""The sparse kernels need rows and columns that are multiples of 64."""


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    return model(tokens.to(model.device), use_cache=False).logits.float()


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "multiflow", "sparsegpt", "alps"])
def test_sparse_kernels_compute_the_same_output(pruner: str, dtype: torch.dtype) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("2:4 kernels need compute capability 8.0 or higher")
    model = tiny_llama(**SIZES).model.to("cuda", dtype)
    tokens = random_tokens(8, 128, 512)
    result = neuroal.prune(model, tokens, pruner=pruner, topup="uniform", pattern=(2, 4))
    assert result.sparsity == pytest.approx(0.5)

    expected = logits(model, tokens)
    sparse = copy.deepcopy(model)
    for linear in DecoderModel(sparse):
        weight = to_sparse_semi_structured(linear.module.weight.detach().contiguous())
        linear.module.weight = nn.Parameter(weight, requires_grad=False)
    difference = (logits(sparse, tokens) - expected).abs().max() / expected.abs().max()
    assert float(difference) <= ROUNDING[dtype]
