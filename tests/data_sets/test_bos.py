"""Windows begin with the text's next token, or with BOS in its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from neuroal.api import calibration_tokens
from neuroal.config.schema import CalibrationConfig, TaskConfig
from neuroal.data.bos import adds_bos, begin_with_bos
from neuroal.data.text import CalibrationText, evaluation_windows
from neuroal.errors import UserError
from neuroal.evaluation.tasks import prepare
from neuroal.models.location import ZOO


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ZOO / "llama")


def without_bos(text: str, verbose: bool = False) -> dict[str, list[int]]:
    """Tokenize as a tokenizer without a BOS token."""
    return {"input_ids": [ord(letter) for letter in text]}


def test_bos_replaces_the_first_token_of_every_evaluation_window(tokenizer: Any) -> None:
    stream = evaluation_windows("builtin", tokenizer, 32, 5, None)
    window = evaluation_windows("builtin", tokenizer, 32, 5, None, bos="window")
    assert (window.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert torch.equal(window.tokens[:, 1:], stream.tokens[:, 1:])
    assert window.fingerprint != stream.fingerprint
    again = evaluation_windows("builtin", tokenizer, 32, 5, None)
    assert torch.equal(again.tokens, stream.tokens)  # tokens in the cache are unchanged


@pytest.mark.parametrize("source", ["builtin", ["a long story of an old ship"] * 40])
def test_bos_replaces_the_first_token_of_every_calibration_window(
    source: Any, tokenizer: Any
) -> None:
    settings: dict[str, Any] = {"windows": 4, "seqlen": 16, "seed": 2}
    stream = calibration_tokens(source, tokenizer, **settings)
    assert torch.equal(calibration_tokens(source, tokenizer, **settings, bos="stream"), stream)
    window = calibration_tokens(source, tokenizer, **settings, bos="window")
    assert (window[:, 0] == tokenizer.bos_token_id).all()
    assert torch.equal(window[:, 1:], stream[:, 1:])


def test_a_tokenizer_without_bos_is_an_error_that_names_the_key() -> None:
    text = CalibrationText.find(CalibrationConfig(name="builtin"), None)
    with pytest.raises(UserError, match=r"calibration\.bos=window: .* no BOS .*=stream"):
        text.windows(without_bos, 2, 8, 0, bos="window")
    task = TaskConfig(names=["builtin"], seqlen=8, bos="window")
    with pytest.raises(UserError, match=r"task\.bos=window: .* no BOS .*=stream"):
        prepare(task, without_bos, 64, None)
    assert text.windows(without_bos, 2, 8, 0).tokens.shape == (2, 8)


def test_an_unknown_value_is_named(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"bos=windows: .*did you mean 'window'"):
        calibration_tokens("builtin", tokenizer, bos="windows")


def test_a_tokenizer_may_have_bos_without_adding_it(tokenizer: Any) -> None:
    class Adding(SimpleNamespace):
        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [self.bos_token_id, 7]}

    assert adds_bos(Adding(bos_token_id=2))
    assert not adds_bos(tokenizer)
    assert not adds_bos(without_bos)
    tokens = torch.full((2, 3), 7)
    assert begin_with_bos(tokens, tokenizer, "task.bos")[:, 0].tolist() == [0, 0]
    assert (tokens == 7).all()
