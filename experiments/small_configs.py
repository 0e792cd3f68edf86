"""Small random configurations of the causal language models of the installed `transformers`."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

SIZES = {
    64: "mamba_d_ssm vocab_size vocab_size_per_layer_input n_words",
    32: "hidden_size n_embd d_model hidden_dim dim emb_dim word_embed_proj_dim embedding_size "
    "n_embed model_dim attention_hidden_size",
    48: "intermediate_size n_inner ffn_dim d_ff decoder_ffn_dim encoder_ffn_dim ffn_hidden_size "
    "intermediate_dim d_inner intermediate_size_mlp hidden_size_mlp dense_intermediate_size "
    "feed_forward_hidden_size",
    24: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
    "expert_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size",
    4: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers "
    "num_attention_heads n_head n_heads num_heads decoder_attention_heads "
    "encoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "linear_num_key_heads linear_num_value_heads index_n_heads time_step_rank mamba_dt_rank "
    "rotary_dim",
    2: "num_key_value_heads num_kv_heads n_head_kv multi_query_group_num num_experts_per_tok moe_k "
    "moe_topk top_k_experts num_experts_per_token moe_top_k eos_token_id",
    8: "head_dim kv_channels qk_nope_head_dim qk_rope_head_dim v_head_dim attention_head_dim d_kv "
    "swa_head_dim linear_key_head_dim linear_value_head_dim index_head_dim mamba_d_state "
    "state_size ssm_state_size mamba_n_heads mamba_num_heads mamba_d_head mamba_head_dim "
    "index_topk",
    128: "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length",
    16: "q_lora_rank kv_lora_rank o_lora_rank lora_rank sliding_window",
    1: "n_group topk_group first_k_dense_replace num_shared_experts n_shared_experts bos_token_id",
    0: "pad_token_id num_kv_shared_layers",
}
"""Value → names of the settings that it replaces."""
SMALL = {name: value for value, names in SIZES.items() for name in names.split()}
ALWAYS = ("pad_token_id", "bos_token_id", "eos_token_id")
ALL_HEADS = {"num_key_value_heads": 4}
HEADS = {"head_dim": 8}
CHANGES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"), ALL_HEADS),
    **dict.fromkeys(("glm_moe_dsa", "longcat_flash", "minicpm3", "youtu"), ALL_HEADS),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), HEADS),
    "deepseek_v2": {**ALL_HEADS, "topk_group": 1, "n_group": 1, "num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "zamba": {
        "num_hidden_layers": 6,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layer_types": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
    "gemma3n_text": {"hidden_size_per_layer_input": 8, "laurel_rank": 8},
}
"""What an architecture needs besides `SMALL`."""


def architectures() -> list[str]:
    """Return the model types of all causal language models."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def small_config(model_type: str) -> Any:
    """Return a configuration of about four narrow blocks, where its settings are known."""
    return _small(CONFIG_MAPPING[model_type], CHANGES.get(model_type, {}))


def _small(config_class: Any, changes: dict[str, Any]) -> Any:
    default = config_class()
    own = {*vars(default), *getattr(config_class, "attribute_map", ())}
    settings = {name: SMALL[name] for name in ALWAYS}
    for name in SMALL.keys() & own:
        if isinstance(_setting(default, name), int):
            settings[name] = SMALL[name]
    for name, part in getattr(config_class, "sub_configs", {}).items():
        if part is AutoConfig:
            part = type(_setting(default, name))
        if issubclass(part, PreTrainedConfig):
            settings[name] = _small(part, {}).to_dict()
    return config_class(**{**settings, **changes})


def _setting(config: Any, name: str) -> Any:
    """Return a setting; None if it is absent or differs between layers."""
    try:
        return getattr(config, name, None)
    except (AttributeError, ValueError):
        return None
