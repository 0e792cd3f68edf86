"""Small random models, tokens and contexts for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuroal.models.adapter import DecoderModel
from neuroal.pipeline import Recipe
from neuroal.pruners.base import Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.wanda import Wanda
from neuroal.search.context import AllocationContext
from neuroal.sparsity.budget import Rules
from neuroal.topups.base import TopUp
from neuroal.tracking import QuietProgress


def tiny_llama(**changes: Any) -> DecoderModel:
    """Return a random LLaMA with 4 blocks of width 32 in float32; `changes` update its config."""
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


def two_of_four(decoder: DecoderModel) -> DecoderModel:
    """Return `decoder` with every second weight of a row set to zero."""
    with torch.no_grad():
        for linear in decoder:
            weight = linear.weight.clone()
            weight[:, 1::2] = 0
            linear.weight = weight
    return decoder


def random_tokens(windows: int, seqlen: int, vocabulary: int = 64, seed: int = 0) -> torch.Tensor:
    """Return random token ids (windows, seqlen)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (windows, seqlen), generator=generator)


def allocation_context(
    decoder: DecoderModel, pruner: Pruner | None = None, **changes: Any
) -> AllocationContext:
    """Return the context of a top-up: Wanda at 60 %, exact rules and four random windows.

    `changes` replace fields of the context or of its settings.
    """
    fields = {field.name for field in dataclasses.fields(PruningSettings)} - {"batch"}
    settings = {key: changes.pop(key) for key in fields & changes.keys()}
    return AllocationContext(
        decoder=decoder,
        settings=PruningSettings(pruner or Wanda(), **{"sparsity": 0.6, **settings}),
        **{
            "tokens": random_tokens(4, 24),
            "batch": 4,
            "progress": QuietProgress(),
            **changes,
        },
    )


def check(
    topup: TopUp,
    pruner: Pruner,
    sparsity: float = 0.6,
    rules: Rules = Rules.EXACT,
    group: int | None = None,
) -> None:
    """Check a recipe as a run does before loading a model."""
    Recipe(PruningSettings(pruner, sparsity, rules, group), topup).check()
