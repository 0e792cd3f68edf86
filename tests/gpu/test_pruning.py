"""Pruning on a GPU: late checks are still reported, and masks are a CPU's."""

from __future__ import annotations

import pytest
import torch

import neuroal
from neuroal.errors import UserError
from neuroal.pruners.packed import SHARE_OF_GPU, PackedMasks
from tests.small_models import random_tokens, tiny_llama


@pytest.mark.parametrize("pruner", ["wanda", "multiflow", "sparsegpt", "alps"])
def test_the_first_linear_with_infinite_inputs_is_named(pruner: str) -> None:
    model = tiny_llama().model.cuda()
    model.model.layers[1].input_layernorm.weight.data.fill_(1e30)
    with pytest.raises(UserError, match=r"the input of '1\.self_attn\.q_proj' is NaN or infinite"):
        neuroal.prune(model, random_tokens(4, 24), pruner=pruner, topup="uniform")


@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "multiflow"])
def test_weights_are_those_of_a_cpu(pruner: str) -> None:
    weights = []
    for device in ("cpu", "cuda"):
        model = tiny_llama().model.to(device)
        neuroal.prune(model, random_tokens(8, 24), pruner=pruner, topup="uniform", sparsity=0.5)
        weights.append([p.cpu() for name, p in model.named_parameters() if "_proj" in name])
    same = torch.stack(
        [((a == 0) == (b == 0)).double().mean() for a, b in zip(*weights, strict=True)]
    )
    assert same.min() >= 0.999  # scores that are almost equal may change places


@pytest.mark.parametrize("share", [0.0, 1e-8, SHARE_OF_GPU])
def test_masks_are_the_same_from_the_gpu_and_from_the_host(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.pruners.packed.SHARE_OF_GPU", share)
    generator = torch.Generator().manual_seed(0)
    masks = {str(n): torch.rand(24, 40, generator=generator) < 0.3 for n in range(40)}
    packed, host = PackedMasks(), PackedMasks()
    for key, mask in masks.items():
        packed.add(key, mask.cuda())
        host.add(key, mask)
    assert packed.sparsities() == host.sparsities()
    assert packed.digests() == host.digests()
