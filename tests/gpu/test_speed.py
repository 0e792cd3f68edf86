"""Speed on a GPU, with the kernels for 2:4 weights."""

from __future__ import annotations

import pytest
import torch

from neuroal.evaluation.speed import speeds
from neuroal.models.adapter import DecoderModel
from neuroal.models.semi_structured import use_kernels
from tests.small_models import random_tokens, tiny_llama

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def pruned() -> DecoderModel:
    decoder = tiny_llama(hidden_size=256, intermediate_size=512)
    decoder.model.to("cuda", torch.bfloat16)
    with torch.no_grad():
        for linear in decoder:
            weight = linear.weight.clone()
            weight[:, 1::2] = 0
            linear.weight = weight
    return decoder


def test_two_of_four_kernels_give_the_logits_of_dense_ones() -> None:
    decoder = pruned()
    tokens = random_tokens(2, 32).to("cuda")
    with torch.no_grad():
        dense = decoder.model(tokens).logits.float()
        assert use_kernels(decoder) == 4 * 7
        sparse = decoder.model(tokens).logits.float()
    assert torch.allclose(sparse, dense, atol=0.05 * float(dense.abs().max()))


def test_both_kinds_of_kernels_are_measured() -> None:
    dense, sparse = speeds(pruned().model, 64)
    assert (dense.kernels, sparse.kernels) == ("dense", "2:4")
    assert sparse.weight_bytes < dense.weight_bytes
    assert min(dense.prefill, dense.decode, sparse.prefill, sparse.decode) > 0
