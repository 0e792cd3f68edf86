"""OWL and DLP set the densities of blocks by the saliencies of the dense model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.models.adapter import DecoderModel
from neuroal.search.dense_pass import mean_of, score_blocks
from neuroal.topups.base import Allocation
from neuroal.topups.dlp import DLP
from neuroal.topups.owl import OWL
from tests.small_models import allocation_context, random_tokens, tiny_llama

TOKENS = random_tokens(4, 24)


@torch.no_grad()
def saliencies_by_hand(decoder: DecoderModel) -> list[Tensor]:
    """Return |W|·a of each block as one vector, from a plain forward pass of the whole model."""
    inputs: dict[str, Tensor] = {}
    handles = [
        linear.module.register_forward_pre_hook(
            lambda _m, args, key=linear.key: inputs.__setitem__(key, args[0])
        )
        for linear in decoder
    ]
    decoder.model(TOKENS)
    for handle in handles:
        handle.remove()
    return [
        torch.cat(
            [
                (lin.weight.abs() * inputs[lin.key].square().sum(1).mean(0).sqrt()).flatten()
                for lin in linears
            ]
        )
        for linears in decoder.linears
    ]


def block_densities(allocation: Allocation) -> Tensor:
    ratios = [float(allocation.plan.ratios[f"{block}.mlp.up_proj"]) for block in range(4)]
    return 1 - torch.tensor(ratios, dtype=torch.float64)


def scaled(values: Tensor, spread: float, sparsity: float = 0.6) -> Tensor:
    values = values.double()
    scaled = (values - values.min()) / (values.max() - values.min()) * 2 * spread
    return scaled - scaled.mean() + 1 - sparsity


def test_owl_keeps_blocks_with_more_outliers_denser() -> None:
    decoder = tiny_llama()
    allocation = OWL(outlier_factor=3.0).allocate(allocation_context(decoder))
    shares = torch.stack([(s > 3 * s.mean()).double().mean() for s in saliencies_by_hand(decoder)])
    assert allocation.report["outlier_share"] == pytest.approx(shares.tolist())
    torch.testing.assert_close(block_densities(allocation), scaled(shares, 0.08))


@pytest.mark.parametrize("average", ["median", "mean"])
def test_dlp_keeps_blocks_of_low_average_saliency_denser(average: str) -> None:
    decoder = tiny_llama()
    allocation = DLP(average=average).allocate(allocation_context(decoder))
    averages = torch.stack([getattr(s, average)() for s in saliencies_by_hand(decoder)]).double()
    expected = scaled(1 - averages / averages.sum(), 0.15)
    torch.testing.assert_close(block_densities(allocation), expected, atol=1e-5, rtol=1e-5)


def test_dlp_is_uniform_if_all_weights_are_zero() -> None:
    decoder = tiny_llama()
    for linear in decoder:
        linear.weight = torch.zeros_like(linear.weight)
    plan = DLP().allocate(allocation_context(decoder)).plan
    assert list(plan.ratios.values()) == pytest.approx([0.6] * len(plan.ratios))


def test_blocks_without_prunable_linears_are_skipped() -> None:
    decoder = DecoderModel(tiny_llama().model, exclude=["1.*"])
    plan = OWL().allocate(allocation_context(decoder)).plan
    assert set(plan.ratios) == {linear.key for linear in decoder}


def test_the_output_of_the_last_block_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, outputs = BlockRunner.measure, []

    def recorded(self: BlockRunner, *arguments: Any, **options: Any) -> Any:
        outputs.append(options["outputs"])
        return measure(self, *arguments, **options)

    monkeypatch.setattr(BlockRunner, "measure", recorded)
    score_blocks(allocation_context(tiny_llama()), mean_of)
    assert outputs == [True, True, True, False]


def test_a_single_block_gets_the_target_sparsity() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    assert set(OWL().allocate(allocation_context(decoder)).plan.ratios.values()) == {0.6}


@pytest.mark.parametrize(
    ("topup", "settings", "message"),
    [
        (OWL, {"outlier_factor": 0.0}, r"topup\.outlier_factor=0\.0"),
        (OWL, {"spread": 1.2}, r"topup\.spread=1\.2"),
        (DLP, {"spread": -0.1}, r"topup\.spread=-0\.1"),
        (DLP, {"average": "mode"}, "median, mean"),
    ],
)
def test_errors_name_invalid_settings(topup: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        topup(**settings)


def test_an_outlier_exceeds_the_factor_times_the_mean_of_all_linears() -> None:
    saliencies = [torch.tensor([[1.0, 1.0, 2.0]]), torch.tensor([[4.0]])]  # mean 2
    assert OWL(outlier_factor=2.0)._outlier_share(saliencies) == 0
    assert OWL(outlier_factor=1.0)._outlier_share(saliencies) == 0.25
    assert OWL(outlier_factor=0.9)._outlier_share(saliencies) == 0.5
