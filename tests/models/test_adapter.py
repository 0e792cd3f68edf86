"""Patterns select linears, and one that selects nothing is a mistake."""

from __future__ import annotations

import pytest

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
