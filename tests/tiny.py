"""Small random models for tests."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.pruners.wanda import Wanda
from neuroal.topups.base import AllocationContext
from neuroal.tracking import QuietProgress


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


def allocation_context(
    subject: DecoderModel, pruner: Pruner | None = None, **changes: Any
) -> AllocationContext:
    """What a top-up is given: Wanda at 60 % with exact rules, four random windows."""
    settings: dict[str, Any] = {
        "subject": subject,
        "pruner": pruner or Wanda(),
        "sparsity": 0.6,
        "rules": Rules.EXACT,
        "tokens": random_tokens(4, 24),
        "batch": 4,
        "progress": QuietProgress(),
    }
    return AllocationContext(**{**settings, **changes})
