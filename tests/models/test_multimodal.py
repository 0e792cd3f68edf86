"""Of a multimodal model, the language model is pruned, and its other parts stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Llama4Config,
    PreTrainedModel,
    Qwen2VLConfig,
)

import neuroal
from neuroal.models.adapter import DecoderModel
from neuroal.topups.neuroal import NeuroAL

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
"""A tower as deep as the language model, and larger."""
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
CONFIGS: dict[str, Any] = {
    "gemma3": lambda: Gemma3Config(
        text_config={**TEXT, "head_dim": 8, "sliding_window": 8},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=5,
        boi_token_index=6,
        eoi_token_index=7,
    ),
    "qwen2_vl": lambda: Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": SECTIONS},
        vision_config={
            "depth": 3,
            "embed_dim": 64,
            "hidden_size": 32,
            "num_heads": 4,
            "patch_size": 14,
        },
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    ),
    "llama4": lambda: Llama4Config(
        text_config={
            **TEXT,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 40,
            "interleave_moe_layer_step": 1,
        },
        vision_config={
            **VISION,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        image_token_index=5,
    ),
}
TOKENS = torch.randint(10, 64, (8, 40), generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore:block .* saw fewer")


def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(CONFIGS[name](), dtype=torch.float32).eval()


@pytest.mark.parametrize("pruner", ["magnitude", "wanda"])
@pytest.mark.parametrize("name", CONFIGS)
def test_only_the_language_model_is_pruned(name: str, pruner: str) -> None:
    model = model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    topup = NeuroAL(step="block", block_candidates=[0.05, 0.2])
    result = neuroal.prune(model, TOKENS, pruner=pruner, topup=topup, sparsity=0.5)
    decoder = DecoderModel(model)
    assert "language_model" in decoder.blocks_name
    assert {key.partition(".")[0] for key in result.masks} == {"0", "1", "2"}
    zeros = sum(int((linear.weight == 0).sum()) for linear in decoder)
    assert zeros == round(0.5 * decoder.numel)
    for key, value in model.state_dict().items():
        if not key.startswith(decoder.blocks_name):
            assert torch.equal(value, before[key]), key


def test_a_multimodal_model_is_saved_and_loaded_again(tmp_path: Path) -> None:
    model = model_of("gemma3")
    neuroal.prune(model, TOKENS, topup="uniform", sparsity=0.5)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    for linear, other in zip(DecoderModel(model), DecoderModel(loaded), strict=True):
        assert torch.equal(linear.weight, other.weight), linear.key
