"""A tokenizer must belong to its model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import neuroal
from neuroal.cli.compose import composed
from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.load import load_model
from neuroal.models.location import ZOO
from neuroal.models.tokens import check_tokens
from neuroal.run import run
from tests.architectures import ARCHITECTURES, build
from tests.small_models import random_tokens, tiny_llama

SMALL = ["calibration.windows=2", "calibration.seqlen=16", "task.seqlen=16", "task.limit=2"]


@pytest.mark.parametrize("model_type", ["opt", "gpt_neox", "qwen2", "gemma", "llama"])
def test_a_folder_without_tokenizer_files_is_named(model_type: str, tmp_path: Path) -> None:
    build(model_type, **ARCHITECTURES[model_type][0]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"missing.*copy those of the model there") as caught:
        load_model(ModelConfig(source="hf", path=str(tmp_path)), torch.device("cpu"))
    assert str(tmp_path) in str(caught.value)


def test_ids_beyond_the_embedding_are_named_before_any_work(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(ZOO / "llama").save_pretrained(tmp_path / "model")
    overrides = ["model=hf", f"model.path={tmp_path}/model", f"out={tmp_path}/runs", *SMALL]
    message = r"tokenizer's 4096 tokens.*token id \d+, but the model's embedding has 64 rows"
    with pytest.raises(UserError, match=message):
        run(composed(overrides))
    assert not list((tmp_path / "runs").rglob("*.json"))


@pytest.mark.parametrize("wrong", [-1, 64])
def test_ids_of_windows_in_memory_are_checked(wrong: int) -> None:
    tokens = random_tokens(2, 8)
    tokens[1, 3] = wrong
    model = tiny_llama().model
    for work in (
        lambda: neuroal.prune(model, tokens, topup="uniform"),
        lambda: perplexity(model, tokens),
        lambda: check_tokens(model, tokens, "it has"),
    ):
        with pytest.raises(UserError, match=rf"token id {wrong}, but.* 64 rows \(ids 0 to 63\)"):
            work()
    check_tokens(model, random_tokens(2, 8), "it has")
