"""Models of the zoo: file sizes, model cards, loss curves and quality after pruning."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import transformers

import neuroal
from neuroal.config.schema import CalibrationConfig, ModelConfig
from neuroal.data.text import CalibrationText, evaluation_windows
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.load import load_model
from neuroal.models.location import ZOO

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi": "PhiForCausalLM",
    "opt": "OPTForCausalLM",
}
BUILTIN = ZOO.parent / "data" / "builtin"
MIB = 2**20


def size(folder: Path) -> int:
    """Return the total size of the files in `folder` in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_models_and_texts_are_small() -> None:
    assert size(ZOO) <= 24 * MIB
    assert size(BUILTIN) <= 2 * MIB


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_has_the_architecture_of_its_family(family: str) -> None:
    config = transformers.AutoConfig.from_pretrained(ZOO / family)
    assert config.architectures == [FAMILIES[family]]
    assert config.num_hidden_layers >= 8
    assert config.max_position_embeddings >= 512
    assert config.dtype == torch.bfloat16
    if family == "mistral":
        assert config.num_key_value_heads < config.num_attention_heads


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_card_documents_the_training(family: str) -> None:
    card = (ZOO / family / "README.md").read_text()
    facts = json.loads((ZOO / family / "training.json").read_text())
    for fact in (f"{facts['heldout_ppl']:.3f}", f"{facts['steps']} of", facts["date"]):
        assert fact in card
    for row in ("tokens seen", "seed", "trained on", "## Data and licences"):
        assert row in card


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_predicts_better_than_trigrams(family: str) -> None:
    facts = json.loads((ZOO / family / "training.json").read_text())
    assert facts["heldout_ppl"] <= 0.6 * facts["trigram_ppl"]
    assert facts["trigram_ppl"] < facts["unigram_ppl"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_loss_decreases(family: str) -> None:
    with (ZOO / family / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    assert len(losses) >= 20
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_half_of_the_weights_is_cheap_and_four_fifths_is_not(family: str) -> None:
    loaded = load_model(ModelConfig(source="zoo", path=family), torch.device("cpu"))
    text = CalibrationText.find(CalibrationConfig(name="builtin"), None)
    tokens = text.windows(loaded.tokenizer, 16, 512, 0).tokens
    windows = evaluation_windows("builtin", loaded.tokenizer, 512, 24, None).tokens
    weights = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    ppl = {0.0: perplexity(loaded.model, windows).value}
    for sparsity in (0.5, 0.8):
        loaded.model.load_state_dict(weights)
        neuroal.prune(loaded.model, tokens, pruner="wanda", topup="uniform", sparsity=sparsity)
        ppl[sparsity] = perplexity(loaded.model, windows).value
    assert ppl[0.5] <= 1.3 * ppl[0.0]
    assert ppl[0.8] >= 1.5 * ppl[0.0]
