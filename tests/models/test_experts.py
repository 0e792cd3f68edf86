"""Fused experts are pruned as if every expert had linears of its own."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import neuroal
from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.models.offload import place_on_host, save_offloaded
from neuroal.models.weights import leaf_weights, swapped_weights
from neuroal.placement.checkpoint import Checkpoint
from neuroal.topups.evolve import Evolve
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from tests.architectures import EXPERTS
from tests.routed import routed as small
from tests.routed import with_lists
from tests.small_models import random_tokens

TOKENS = random_tokens(6, 40)
FEW: dict[str, Any] = {"block_candidates": [0.05, 0.2], "row_candidates": [0.0, 0.1]}
pytestmark = pytest.mark.filterwarnings("ignore:topup=marginal fits", "ignore:block .* saw fewer")


SETTINGS: list[dict[str, Any]] = [
    {"pruner": "magnitude", "topup": "alpha"},
    {"pruner": "wanda", "topup": NeuroAL(**FEW)},
    {"pruner": "wanda", "topup": "owl", "pattern": (2, 4)},
    {"pruner": "multiflow", "topup": Fisher(windows=2, rounds=2, skip=0)},
    {"pruner": "sparsegpt", "topup": "dlp"},
    {"pruner": "alps", "topup": "uniform"},
    {"pruner": "wanda", "topup": "uniform", "refine": "dsnot"},
    {"topup": EqualMarginals(linear_iterations=2, row_iterations=2, start="uniform")},
    {"topup": Evolve(passes=6, generation=3)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
def test_fused_experts_are_pruned_as_separate_linears(
    model_type: str, settings: dict[str, Any]
) -> None:
    fused, separate = small(model_type), with_lists(small(model_type))
    results = [
        neuroal.prune(model, TOKENS, **{"search_windows": 2, **settings})
        for model in (fused, separate)
    ]
    assert results[0].masks.keys() == results[1].masks.keys()
    differing = sum(
        int((mask != results[1].masks[key]).sum()) for key, mask in results[0].masks.items()
    )
    assert differing <= 4  # rounding, where two scores are equal
    assert results[0].sparsity == pytest.approx(results[1].sparsity)
    for linear in DecoderModel(fused):
        assert not linear.weight[results[0].masks[linear.key]].any()


@torch.no_grad()
def test_wanda_scores_an_expert_by_the_tokens_routed_to_it() -> None:
    model, dense = small("mixtral"), small("mixtral")
    seen: list[tuple[Tensor, ...]] = []
    dense.model.layers[0].mlp.experts.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs)
    )
    dense(TOKENS)
    hidden, chosen, _ = seen[0]
    result = neuroal.prune(model, TOKENS, pruner="wanda", topup="uniform", sparsity=0.5)
    experts = dense.model.layers[0].mlp.experts
    inputs_of_down = defaultdict(list)
    for expert in range(4):
        x = hidden[(chosen == expert).any(1)]
        inputs_of_down[expert] = experts._apply_gate(x @ experts.gate_up_proj[expert].T)
        for name, inputs in (("gate_up_proj", x), ("down_proj", inputs_of_down[expert])):
            weight = experts.get_parameter(name)[expert]
            scores = weight.abs() * inputs.square().sum(0).sqrt()
            order = scores.sort(dim=1, stable=True).indices
            expected = torch.zeros_like(scores, dtype=torch.bool)
            expected.scatter_(1, order[:, : scores.shape[1] // 2], value=True)
            assert torch.equal(result.masks[f"0.mlp.experts.{expert}.{name}"], expected)


@pytest.mark.parametrize("model_type", EXPERTS)
def test_every_architecture_with_experts_is_pruned_and_saved(
    model_type: str, tmp_path: Path
) -> None:
    model = small(model_type)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = neuroal.prune(model, TOKENS, topup=NeuroAL(step="block", **FEW), sparsity=0.6)
    experts = [key for key in result.masks if ".experts." in key]
    assert len(experts) in (8, 16)
    decoder = DecoderModel(model)
    zeros = sum(int((linear.weight == 0).sum()) for linear in decoder)
    assert zeros == round(0.6 * decoder.numel)
    for name, value in model.state_dict().items():
        if "router" in name or name.endswith(("mlp.gate.weight", "norm.weight")):
            assert torch.equal(value, before[name]), name
    model.save_pretrained(tmp_path)
    loaded = DecoderModel(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))
    for linear, other in zip(decoder, loaded, strict=True):
        assert torch.equal(linear.weight, other.weight), linear.key


def test_weights_of_experts_are_views_that_gradients_and_replacements_reach() -> None:
    decoder = DecoderModel(small("gpt_oss"))
    linears = [linear for linear in decoder.linears[0] if ".experts." in linear.name]
    experts = decoder.blocks[0].mlp.experts
    for linear in linears:
        parameter = experts.get_parameter(linear.name.rpartition(".")[2])
        storage = parameter.untyped_storage().data_ptr()
        assert linear.weight.untyped_storage().data_ptr() == storage
    x = torch.randn(3, linears[0].cols)
    doubled = {linear.key: 2 * linear.weight for linear in linears}
    bias = experts.gate_up_proj_bias[0]
    with swapped_weights(linears, doubled):
        output = linears[0].module(x, torch.arange(3))
    torch.testing.assert_close(output, x @ doubled[linears[0].key].T + bias)
    with leaf_weights(linears, doubled) as leaves:
        output = linears[0].module(x, torch.arange(3))
    (gradient,) = torch.autograd.grad(output.sum(), [leaves[0]])
    torch.testing.assert_close(gradient, x.sum(0).expand(linears[0].rows, -1))
    linears[0].weight = torch.zeros_like(linears[0].weight)
    assert not experts.gate_up_proj[0].any()
    assert experts.gate_up_proj[1].all()


@pytest.mark.parametrize(
    "settings",
    [
        {"pruner": "wanda"},
        {"pruner": "sparsegpt"},
        {"pruner": "multiflow"},
        {"pruner": "wanda", "refine": "dsnot"},
    ],
    ids=str,
)
def test_an_expert_without_tokens_is_reported_and_pruned_by_magnitude(
    settings: dict[str, Any],
) -> None:
    model, other = small("gpt_oss"), small("gpt_oss")
    for changed in (model, other):
        for block in changed.model.layers:
            block.mlp.router.bias.data[3] = -1e4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = neuroal.prune(model, TOKENS, topup="uniform", **settings)
    lines = [str(w.message) for w in caught if "saw fewer" in str(w.message)]
    assert [line.partition(":")[0] for line in lines] == ["block 0", "block 1"]
    assert "2 of 12 linears" in lines[0]
    assert "mlp.experts.3.gate_up_proj 0 of 32" in lines[0]
    dense = {linear.key: linear.weight.clone() for linear in DecoderModel(other)}
    magnitude = neuroal.prune(other, TOKENS, pruner="magnitude", topup="uniform")
    for linear in DecoderModel(model).linears[0][-2:]:
        mask, weight = result.masks[linear.key], dense[linear.key]
        if settings["pruner"] == "wanda":
            assert torch.equal(mask, magnitude.masks[linear.key])
        if settings["pruner"] == "sparsegpt":  # it compares the rows, too
            assert weight[mask].abs().max() <= weight[~mask].abs().min()
        assert torch.equal(linear.weight, weight.masked_fill(mask, 0))


@pytest.mark.parametrize(("model_type", "partner"), [("mixtral", 48), ("gpt_oss", 1)])
def test_rows_of_gate_and_up_share_the_sparsity_of_their_position(
    model_type: str, partner: int
) -> None:
    """Both rows of a position feed the same column of the down projection."""
    topup = NeuroAL(step="row", row_candidates=[0.2])
    plan = neuroal.prune(small(model_type), TOKENS, topup=topup, sparsity=0.5).plan
    ratios = plan.ratios["0.mlp.experts.2.gate_up_proj"]
    assert isinstance(ratios, Tensor)
    assert len(ratios.unique()) == 48
    first = ratios[:48] if partner == 48 else ratios[::2]
    second = ratios[48:] if partner == 48 else ratios[1::2]
    assert torch.equal(first, second)


def test_offloaded_experts_are_pruned_to_the_same_masks() -> None:
    resident, offloaded = small("qwen2_moe"), small("qwen2_moe")
    masks = neuroal.prune(resident, TOKENS, topup="owl").masks
    others = neuroal.prune(offloaded, TOKENS, topup="owl", offload="blocks").masks
    assert all(torch.equal(mask, others[key]) for key, mask in masks.items())
    for (name, value), other in zip(
        resident.state_dict().items(), offloaded.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def test_an_offloaded_model_is_saved_with_the_names_of_its_checkpoint(tmp_path: Path) -> None:
    small("mixtral").save_pretrained(tmp_path / "dense")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)
    place_on_host(model, torch.device("cpu"))
    (tmp_path / "copy").mkdir()
    save_offloaded(model, tmp_path / "copy")
    dense = Checkpoint(tmp_path / "dense", "model").headers
    copy = Checkpoint(tmp_path / "copy", "model").headers
    assert copy.keys() == dense.keys()
    assert any(name.endswith("experts.3.w1.weight") for name in copy)


def test_patterns_select_experts_by_linear_or_all_at_once() -> None:
    model = small("mixtral")
    assert len([*DecoderModel(model, exclude=["mlp.experts"])]) == 2 * 4
    assert len([*DecoderModel(model, include=["mlp.experts"])]) == 2 * 8
    assert len([*DecoderModel(model, include=["0.mlp.experts.3.*"])]) == 2
    with pytest.raises(UserError, match=r"did you mean '\*\.down_proj'"):
        DecoderModel(model, include=["*.down_porj"])


def test_a_message_lists_experts_once() -> None:
    with pytest.raises(
        UserError, match=r"has: .*o_proj, mlp\.experts\.\*\.gate_up_proj, mlp\."
    ) as e:
        DecoderModel(small("mixtral"), exclude=["*"])
    assert "experts.0" not in str(e.value)
