"""Input that cannot be pruned: the command line prints one line and exits with code 2."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

import neuroal
from neuroal.cli import main as cli
from neuroal.errors import UserError
from tests.small_models import random_tokens, tiny_llama

SMALL = ["calibration.windows=1", "calibration.seqlen=32", "task=none", "topup=uniform"]


def refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run ``neuroal ARGUMENTS``, which must fail with code 2; return the line it prints."""
    monkeypatch.setattr(sys, "argv", ["neuroal", *arguments])
    capsys.readouterr()  # discard the output of the test's preparation
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_a_folder_without_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_llama().model.config.save_pretrained(tmp_path)
    path = f"model.path={tmp_path}"
    line = refused(["model=hf", path, *SMALL, f"out={tmp_path}/runs"], monkeypatch, capsys)
    assert "no weights" in line
    assert str(tmp_path) in line


def test_an_encoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=32, intermediate_size=16, **sizes)).save_pretrained(tmp_path)
    path = f"model.path={tmp_path}"
    line = refused(["model=hf", path, *SMALL, f"out={tmp_path}/runs"], monkeypatch, capsys)
    assert "bert is not a decoder-only model" in line


def test_an_output_folder_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    line = refused([*SMALL, f"out={tmp_path}/taken"], monkeypatch, capsys)
    assert f"out={tmp_path}/taken" in line


def test_a_text_shorter_than_a_window_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("Too short.")
    text = ["calibration=text", f"calibration.path={tmp_path}/short.txt"]
    line = refused([*text, *SMALL, f"out={tmp_path}/runs"], monkeypatch, capsys)
    assert "short.txt has only" in line


def test_activations_that_overflow_name_the_linear() -> None:
    decoder = tiny_llama()
    decoder.model.model.layers[0].input_layernorm.weight.data.fill_(1e30)
    with pytest.raises(UserError, match=r"input of '0\.self_attn\.q_proj' is NaN or infinite"):
        neuroal.prune(decoder.model, random_tokens(2, 16), pruner="wanda", topup="uniform")
