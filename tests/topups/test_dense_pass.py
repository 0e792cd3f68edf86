"""OWL and DLP read the dense model's saliencies and spread the blocks' densities by them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.topups.base import Allocation
from neuroal.topups.dlp import DLP
from neuroal.topups.owl import OWL
from tests.tiny import allocation_context, random_tokens, tiny_llama

TOKENS = random_tokens(4, 24)


@torch.no_grad()
def saliencies_by_hand(subject: DecoderModel) -> list[Tensor]:
    """All |W|·a of each block as one vector, from a plain forward pass of the whole model."""
    inputs: dict[str, Tensor] = {}
    handles = [
        linear.module.register_forward_pre_hook(
            lambda _m, args, key=linear.key: inputs.__setitem__(key, args[0])
        )
        for linear in subject
    ]
    subject.model(TOKENS)
    for handle in handles:
        handle.remove()
    return [
        torch.cat(
            [
                (lin.module.weight.abs() * inputs[lin.key].square().sum(1).mean(0).sqrt()).flatten()
                for lin in linears
            ]
        )
        for linears in subject.linears
    ]


def block_densities(allocation: Allocation) -> Tensor:
    ratios = [float(allocation.plan.ratios[f"{block}.mlp.up_proj"]) for block in range(4)]
    return 1 - torch.tensor(ratios, dtype=torch.float64)


def scaled(values: Tensor, spread: float, sparsity: float = 0.6) -> Tensor:
    values = values.double()
    scaled = (values - values.min()) / (values.max() - values.min()) * 2 * spread
    return scaled - scaled.mean() + 1 - sparsity


def test_owl_keeps_blocks_with_more_outliers_denser() -> None:
    subject = tiny_llama()
    allocation = OWL(outlier_factor=3.0).allocate(allocation_context(subject))
    shares = torch.stack([(s > 3 * s.mean()).double().mean() for s in saliencies_by_hand(subject)])
    assert allocation.report["outlier_share"] == pytest.approx(shares.tolist())
    torch.testing.assert_close(block_densities(allocation), scaled(shares, 0.08))


@pytest.mark.parametrize("average", ["median", "mean"])
def test_dlp_keeps_blocks_of_low_average_saliency_denser(average: str) -> None:
    subject = tiny_llama()
    allocation = DLP(average=average).allocate(allocation_context(subject))
    averages = torch.stack([getattr(s, average)() for s in saliencies_by_hand(subject)]).double()
    expected = scaled(1 - averages / averages.sum(), 0.15)
    torch.testing.assert_close(block_densities(allocation), expected, atol=1e-5, rtol=1e-5)


def test_blocks_without_prunable_linears_are_passed_over() -> None:
    subject = DecoderModel(tiny_llama().model, exclude=["1.*"])
    plan = OWL().allocate(allocation_context(subject)).plan
    assert set(plan.ratios) == {linear.key for linear in subject}


def test_blocks_that_are_alike_get_the_same() -> None:
    subject = tiny_llama(num_hidden_layers=1)
    assert set(OWL().allocate(allocation_context(subject)).plan.ratios.values()) == {0.6}


@pytest.mark.parametrize(
    ("topup", "settings", "message"),
    [
        (OWL, {"outlier_factor": 0.0}, r"topup\.outlier_factor=0\.0"),
        (OWL, {"spread": 1.2}, r"topup\.spread=1\.2"),
        (DLP, {"spread": -0.1}, r"topup\.spread=-0\.1"),
        (DLP, {"average": "mode"}, "median, mean"),
    ],
)
def test_bad_settings_are_named(topup: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        topup(**settings)
