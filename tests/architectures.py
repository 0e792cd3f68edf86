"""Configurations and small random models of many architectures."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 8}
LLAMA_LINEARS = [
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
NEOX_LINEARS = [
    "attention.query_key_value",
    "attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
]
ATTENTION = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")]
EXPERT_LINEARS = [
    *ATTENTION,
    *(f"mlp.experts.{n}.{name}_proj" for n in range(4) for name in ("gate_up", "down")),
]
ROUTED = {**GROUPED, "num_experts_per_tok": 2}
SIZES = {"moe_intermediate_size": 24, "head_dim": 8}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    **SIZES,
}
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {**ROUTED, "num_local_experts": 4},
    "qwen2_moe": {
        **ROUTED,
        "num_experts": 4,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
    },
    "qwen3_moe": {**ROUTED, "num_experts": 4, **SIZES},
    "olmoe": {**ROUTED, "num_experts": 4},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "gpt_oss": {
        **ROUTED,
        "num_local_experts": 4,
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "granitemoe": {**ROUTED, "num_local_experts": 4},
    "llama4_text": {
        **GROUPED,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "head_dim": 8,
        "intermediate_size_mlp": 40,
        "interleave_moe_layer_step": 2,
    },
}
"""Architectures with fused experts → changes to `COMMON`."""
ARCHITECTURES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "llama": ({}, LLAMA_LINEARS),
    "mistral": ({**GROUPED, "sliding_window": 8}, LLAMA_LINEARS),
    "phi": (
        {},
        [
            *(f"self_attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "dense")),
            "mlp.fc1",
            "mlp.fc2",
        ],
    ),
    "opt": (
        {"ffn_dim": 48, "word_embed_proj_dim": 32},
        [*(f"self_attn.{n}_proj" for n in ("k", "v", "q", "out")), "fc1", "fc2"],
    ),
    "qwen2": (
        {**GROUPED, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        LLAMA_LINEARS,
    ),
    "qwen3": (HEADS, LLAMA_LINEARS),
    "gemma": (HEADS, LLAMA_LINEARS),
    "gemma2": ({**HEADS, "sliding_window": 8}, LLAMA_LINEARS),
    "gemma3_text": ({**HEADS, "sliding_window": 8, "sliding_window_pattern": 2}, LLAMA_LINEARS),
    "stablelm": (GROUPED, LLAMA_LINEARS),
    "gpt_neox": ({}, NEOX_LINEARS),
    "olmo": ({}, LLAMA_LINEARS),
    "olmo2": ({}, LLAMA_LINEARS),
    "phi3": (
        GROUPED,
        ["self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"],
    ),
    "cohere": (GROUPED, LLAMA_LINEARS),
    "granite": (GROUPED, LLAMA_LINEARS),
    "smollm3": (GROUPED, LLAMA_LINEARS),
    "starcoder2": (
        GROUPED,
        [*(f"self_attn.{n}_proj" for n in ("q", "k", "v", "o")), "mlp.c_fc", "mlp.c_proj"],
    ),
    "falcon": (
        {"num_kv_heads": 4, "ffn_hidden_size": 48},
        [
            "self_attention.query_key_value",
            "self_attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ],
    ),
    "gpt2": ({}, ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    **{name: (EXPERTS[name], EXPERT_LINEARS) for name in ("mixtral", "olmoe", "gpt_oss")},
    "qwen3_moe": (EXPERTS["qwen3_moe"], EXPERT_LINEARS),
    "openai-gpt": ({}, ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "bloom": (
        {"n_layer": 4, "n_head": 4},
        [
            "self_attention.query_key_value",
            "self_attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ],
    ),
}
"""Model type → changes to `COMMON`, and the names of the linears of a block."""


def build(model_type: str, **changes: Any) -> PreTrainedModel:
    """Return a random model of an architecture with the config `COMMON`, updated by `changes`."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**COMMON, **changes})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "phi": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}
"""The model families of the paper → changes to `COMMON`."""


def model_of(family: str) -> Any:
    """Return a random model of one of `FAMILIES` with two blocks."""
    return build(family, **FAMILIES[family], num_hidden_layers=2)
