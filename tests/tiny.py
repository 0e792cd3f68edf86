"""Small random models for tests."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuroal.models.adapter import DecoderModel


def tiny_llama(**changes: Any) -> DecoderModel:
    """LLaMA with 4 blocks of width 32, float32, seeded."""
    settings: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    return DecoderModel(LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval())


def random_tokens(windows: int, seqlen: int, vocabulary: int = 64, seed: int = 0) -> torch.Tensor:
    """Token ids (windows, seqlen)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (windows, seqlen), generator=generator)
