"""Patterns select linears, and one that selects nothing is a mistake."""

from __future__ import annotations

import pytest
from torch import nn

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from tests.small_models import tiny_llama


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("*.q_porj", r"did you mean '\*\.q_proj'"),
        ("model.layers.0.self_attn.q_proj", "did you mean '0.self_attn.q_proj'"),
        ("9.*", r"patterns match NAME or BLOCK\.NAME"),
        ("", r"patterns match NAME or BLOCK\.NAME"),
    ],
)
def test_a_pattern_that_matches_nothing_is_named(key: str, pattern: str, remedy: str) -> None:
    model = tiny_llama().model
    with pytest.raises(UserError, match=remedy) as caught:
        DecoderModel(model, **{key: ["mlp.*", pattern]})
    assert str(caught.value).startswith(f"model.{key}={pattern}: matches no module")


def test_a_pattern_may_match_one_block_or_a_module_that_is_not_linear() -> None:
    decoder = DecoderModel(tiny_llama().model, exclude=["3.mlp.up_proj", "input_layernorm"])
    assert len([*decoder]) == 4 * 7 - 1


def test_a_model_without_linears_is_refused_in_one_line() -> None:
    model = tiny_llama().model
    for block in model.model.layers:
        block.self_attn = block.mlp = nn.Identity()
    with pytest.raises(UserError, match="the first block has: none"):
        DecoderModel(model)


def test_matrices_of_other_layers_are_refused_in_one_advice_that_works() -> None:
    model = tiny_llama().model
    for index in (1, 2):
        model.model.layers[index].mlp.mixer = nn.Bilinear(32, 32, 16)
    model.model.layers[3].other = nn.Bilinear(32, 32, 16)
    with pytest.raises(UserError, match=r"'1\.mlp\.mixer\.weight' of Bilinear") as caught:
        DecoderModel(model, exclude=["*.q_proj"])
    advice = str(caught.value).partition("model.exclude=")[2]
    assert advice == "[*.q_proj,mlp.mixer,other]"
    decoder = DecoderModel(model, exclude=advice.strip("[]").split(","))
    assert len([*decoder]) == 4 * 6


def test_few_matrices_of_other_layers_stay_dense() -> None:
    model = tiny_llama().model
    model.model.layers[1].mlp.mixer = nn.Bilinear(4, 4, 16)
    assert len([*DecoderModel(model)]) == 4 * 7


def test_weights_that_blocks_share_are_refused_in_one_advice_that_works() -> None:
    model = tiny_llama().model
    model.model.layers[2].mlp = model.model.layers[0].mlp  # the same module
    model.model.layers[3].self_attn.q_proj.weight = model.model.layers[1].self_attn.q_proj.weight
    with pytest.raises(
        UserError, match=r"'2\.mlp\.gate_proj' has that of '0\.mlp\.gate_proj'"
    ) as e:
        DecoderModel(model)
    advice = str(e.value).partition("model.exclude=")[2].strip("[]").split(",")
    assert len([*DecoderModel(model, exclude=advice)]) == 4 * 3
    assert len([*DecoderModel(model, exclude=["2.mlp.*", "3.*"])]) == 2 * 7 + 4
