"""A sparsity is that of the prunable weights; what stays dense beside them is told."""

from __future__ import annotations

import warnings

import pytest
import torch

import neuroal
from neuroal.models.adapter import DecoderModel
from neuroal.models.totals import Totals
from tests.architectures import EXPERTS, build
from tests.small_models import random_tokens, tiny_llama

TOKENS = random_tokens(8, 48)


@pytest.mark.parametrize("model_type", ["qwen2_moe", "gpt_oss", "gpt2", "llama"])
def test_shares_are_those_of_the_zeros_in_the_model(model_type: str) -> None:
    model = build(model_type, **EXPERTS.get(model_type, {}))
    shares = neuroal.prune(model, TOKENS, topup="uniform", sparsity=0.5).shares
    decoder = DecoderModel(model)
    matrices = [p for block in decoder.blocks for p in block.parameters() if p.dim() > 1]
    zeros = sum(int((linear.weight == 0).sum()) for linear in decoder)
    assert shares["prunable"] == pytest.approx(0.5, abs=1e-4)
    assert shares["blocks"] == pytest.approx(zeros / sum(p.numel() for p in matrices))
    assert shares["model"] == pytest.approx(zeros / sum(p.numel() for p in model.parameters()))
    assert shares["model"] < shares["blocks"] <= shares["prunable"]


def test_experts_that_stay_dense_are_reported_in_one_line() -> None:
    model = build("mixtral", **EXPERTS["mixtral"])
    with pytest.warns(UserWarning, match=r"model: 8\d% of the weights in the blocks") as caught:
        result = neuroal.prune(model, TOKENS, topup="uniform", exclude=["mlp.experts"])
    assert len([w for w in caught if "stay dense" in str(w.message)]) == 1
    assert result.shares["blocks"] < 0.2 < result.shares["prunable"]


def test_a_tenth_of_the_blocks_may_stay_dense_without_a_line() -> None:
    decoder = tiny_llama()
    assert Totals.of(decoder).warning is None
    assert Totals(90, 100, 200).warning is None
    assert Totals(89, 100, 200).warning is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neuroal.prune(decoder.model, TOKENS, topup="uniform", exclude=["0.self_attn.q_proj"])


def test_shared_weights_count_once() -> None:
    decoder = tiny_llama()
    tied = tiny_llama(tie_word_embeddings=True)
    assert Totals.of(decoder).model - Totals.of(tied).model == 64 * 32
    layers = tied.model.model.layers
    layers[1].mlp = layers[0].mlp
    shared = DecoderModel(tied.model, exclude=["mlp.*"])
    assert Totals.of(decoder).blocks - Totals.of(shared).blocks == 3 * 32 * 48
    assert torch.equal(layers[1].mlp.up_proj.weight, layers[0].mlp.up_proj.weight)
