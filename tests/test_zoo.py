"""The shipped models: sizes, cards, loss curves; small enough, and trained enough to matter."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import transformers

import neuroal
from neuroal.config import CalibrationConfig, ModelConfig
from neuroal.data.text import calibration_windows, evaluation_windows
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.load import ZOO, load_model

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi": "PhiForCausalLM",
    "opt": "OPTForCausalLM",
}
BUILTIN = ZOO.parent / "data" / "builtin"
MIB = 2**20


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_models_and_texts_are_small() -> None:
    assert size(ZOO) <= 24 * MIB
    assert size(BUILTIN) <= 2 * MIB


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_what_its_family_is(family: str) -> None:
    config = transformers.AutoConfig.from_pretrained(ZOO / family)
    assert config.architectures == [FAMILIES[family]]
    assert config.num_hidden_layers >= 8
    assert config.max_position_embeddings >= 512
    assert config.dtype == torch.bfloat16
    if family == "mistral":
        assert config.num_key_value_heads < config.num_attention_heads


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_says_how_the_model_came_about(family: str) -> None:
    card = (ZOO / family / "README.md").read_text()
    facts = json.loads((ZOO / family / "training.json").read_text())
    for stated in (f"{facts['heldout_ppl']:.3f}", f"{facts['steps']} of", facts["date"]):
        assert stated in card
    for row in ("tokens seen", "seed", "trained on", "## Data and licences"):
        assert row in card


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_knows_more_than_trigrams(family: str) -> None:
    facts = json.loads((ZOO / family / "training.json").read_text())
    assert facts["heldout_ppl"] <= 0.6 * facts["trigram_ppl"]
    assert facts["trigram_ppl"] < facts["unigram_ppl"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_curve_goes_down(family: str) -> None:
    with (ZOO / family / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    assert len(losses) >= 20
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_half_of_the_weights_can_go_but_not_four_fifths(family: str) -> None:
    loaded = load_model(ModelConfig(source="zoo", path=family), torch.device("cpu"))
    text = CalibrationConfig(name="builtin", windows=16, search_windows=8)
    tokens = calibration_windows(text, loaded.tokenizer, 16, 512, 0, None).tokens
    held = evaluation_windows("builtin", loaded.tokenizer, 512, 24, None).tokens
    weights = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    found = {0.0: perplexity(loaded.model, held).value}
    for sparsity in (0.5, 0.8):
        loaded.model.load_state_dict(weights)
        neuroal.prune(loaded.model, tokens, pruner="wanda", topup="uniform", sparsity=sparsity)
        found[sparsity] = perplexity(loaded.model, held).value
    assert found[0.5] <= 1.3 * found[0.0]
    assert found[0.8] >= 1.5 * found[0.0]
