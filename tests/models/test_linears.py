"""Linears that a model stores transposed are pruned as an ``nn.Linear`` with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import neuroal
from neuroal.models.adapter import DecoderModel
from neuroal.models.weights import leaf_weights, swapped_weights
from neuroal.topups.evolve import Evolve
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from tests.architectures import build
from tests.small_models import random_tokens

TOKENS = random_tokens(4, 24)
FEW: dict[str, Any] = {"block_candidates": [0.05, 0.2], "row_candidates": [0.0, 0.1]}


def gpt2() -> Any:
    return build("gpt2", num_hidden_layers=2)


def with_linears(model: Any) -> Any:
    """Replace every ``Conv1D`` of `model` by an ``nn.Linear`` with the same weights."""
    for parent in [*model.modules()]:
        for name, module in [*parent.named_children()]:
            if isinstance(module, Conv1D):
                linear = nn.Linear(*module.weight.shape)
                linear.weight.data, linear.bias.data = (
                    module.weight.data.T.contiguous(),
                    module.bias,
                )
                setattr(parent, name, linear)
    return model


@pytest.mark.filterwarnings("ignore:topup=marginal fits")
@pytest.mark.parametrize(
    "settings",
    [
        {"pruner": "magnitude", "topup": "alpha"},
        {"pruner": "wanda", "topup": NeuroAL(**FEW)},
        {"pruner": "wanda", "topup": "owl", "pattern": (2, 4)},
        {"pruner": "multiflow", "topup": Fisher(windows=2, rounds=2)},
        {"pruner": "sparsegpt", "topup": "dlp"},
        {"pruner": "wanda", "topup": "uniform", "refine": "dsnot"},
        {"topup": EqualMarginals(linear_iterations=2, row_iterations=2)},
        {"topup": Evolve(passes=6, generation=3)},
    ],
    ids=str,
)
def test_transposed_weights_are_pruned_as_those_of_a_linear(settings: dict[str, Any]) -> None:
    transposed, plain = gpt2(), with_linears(gpt2())
    results = [
        neuroal.prune(model, TOKENS, **{"search_windows": 2, "sparsity": None, **settings})
        for model in (transposed, plain)
    ]
    assert results[0].masks.keys() == results[1].masks.keys()
    for key, mask in results[0].masks.items():
        assert torch.equal(mask, results[1].masks[key]), key
    for linear, other in zip(DecoderModel(transposed), DecoderModel(plain), strict=True):
        assert isinstance(linear.module, Conv1D)
        assert not linear.weight[results[0].masks[linear.key]].any()
        torch.testing.assert_close(linear.weight, other.weight)


def test_temporary_weights_of_a_transposed_linear_take_effect_and_get_gradients() -> None:
    decoder = DecoderModel(gpt2())
    linears = decoder.linears[0]
    dense = {linear.key: linear.weight for linear in linears}
    x = torch.randn(3, linears[0].cols)
    doubled = {key: 2 * weight for key, weight in dense.items()}
    bias = linears[0].module.bias
    with swapped_weights(linears, doubled):
        torch.testing.assert_close(linears[0].module(x), x @ doubled[linears[0].key].T + bias)
    with leaf_weights(linears, doubled) as leaves:
        output = linears[0].module(x)
        assert torch.equal(linears[0].weight, doubled[linears[0].key])
    (gradient,) = torch.autograd.grad(output.sum(), [leaves[0]])
    torch.testing.assert_close(gradient, x.sum(0).expand(linears[0].rows, -1))
    for linear in linears:
        assert linear.weight.data_ptr() == dense[linear.key].data_ptr()
        assert isinstance(linear.module.weight, nn.Parameter)
