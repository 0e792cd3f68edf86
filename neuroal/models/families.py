"""Data flow between the linears of a decoder block, declared per model family.

NeuroAL's row step scores the rows (outputs) of a linear at the input of the next linear that
reads them (arXiv 2411.07066, section 3.3). Which linear that is depends on the architecture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

NEXT_BLOCK = "<next block>"


@dataclass(frozen=True)
class Family:
    """Data flow between the linears of one block.

    A ``*`` in a name means a number, such as that of an expert.

    Attributes:
        consumers: maps the name of a linear (inside its block) to the name of the first linear
            that reads its output, or to ``NEXT_BLOCK`` if the next block contains that linear. A
            ``*`` means the same number in both names.
        block_inputs: linears that read the normalised input of the block, which does not change
            when the block is pruned.
        attention: linears of the attention layer; None if not declared.
        halves: linears whose output is a gate and an up projection, one after the other, which
            are multiplied entry by entry.
        pairs: as `halves`, with the rows of both projections in turn.
    """

    consumers: Mapping[str, str]
    block_inputs: frozenset[str]
    attention: frozenset[str] | None = None
    halves: frozenset[str] = frozenset()
    pairs: frozenset[str] = frozenset()

    def consumer(self, name: str) -> str:
        """Return the name of the linear that reads the output of linear `name`."""
        consumer = self.consumers.get(name) or self.consumers.get(pattern_of(name), NEXT_BLOCK)
        for number in _NUMBER.findall(name):
            consumer = consumer.replace("*", number, 1)
        return consumer

    def producers(self, name: str) -> set[str]:
        """Return all linears of the block from which data flows into linear `name`, with ``*``."""
        name = pattern_of(name)
        if name in self.block_inputs:
            return set()
        direct = {source for source, consumer in self.consumers.items() if consumer == name}
        return direct.union(*(self.producers(source) for source in direct))

    def width(self, name: str) -> int:
        """Return how many rows of linear `name` feed one column of its consumer."""
        return 2 if pattern_of(name) in self.halves | self.pairs else 1

    def by_row(self, name: str, columns: Tensor) -> Tensor:
        """Return, for each row of linear `name`, the entry of the column that it feeds: (rows,).

        `columns` has one entry for each column of the consumer.
        """
        width = self.width(name)
        if pattern_of(name) in self.pairs:
            return columns.repeat_interleave(width)
        return columns.repeat(width) if width > 1 else columns


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def pattern_of(name: str) -> str:
    """Return the name of a linear with ``*`` for every number between dots."""
    return _NUMBER.sub("*", name)


def patterns_of(names: Iterable[str]) -> str:
    """Return the patterns of linears for a message, each once, however many experts there are."""
    return ", ".join(dict.fromkeys(map(pattern_of, names)))


_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

# Attention followed by a gated MLP, as in LLaMA.
GATED = Family(
    consumers={
        **dict.fromkeys(_ATTENTION, "self_attn.o_proj"),
        "self_attn.o_proj": "mlp.gate_proj",
        "mlp.gate_proj": "mlp.down_proj",
        "mlp.up_proj": "mlp.down_proj",
        "mlp.down_proj": NEXT_BLOCK,
    },
    block_inputs=frozenset(_ATTENTION),
    attention=frozenset({*_ATTENTION, "self_attn.o_proj"}),
)

# Attention and MLP read the same normalised input, so no linear of the block precedes `fc1`.
PHI = Family(
    consumers={
        **dict.fromkeys(_ATTENTION, "self_attn.dense"),
        "self_attn.dense": "mlp.fc1",
        "mlp.fc1": "mlp.fc2",
        "mlp.fc2": NEXT_BLOCK,
    },
    block_inputs=frozenset({*_ATTENTION, "mlp.fc1"}),
    attention=frozenset({*_ATTENTION, "self_attn.dense"}),
)

OPT = Family(
    consumers={
        **dict.fromkeys(_ATTENTION, "self_attn.out_proj"),
        "self_attn.out_proj": "fc1",
        "fc1": "fc2",
        "fc2": NEXT_BLOCK,
    },
    block_inputs=frozenset(_ATTENTION),
    attention=frozenset({*_ATTENTION, "self_attn.out_proj"}),
)

GPT2 = Family(
    consumers={
        "attn.c_attn": "attn.c_proj",
        "attn.c_proj": "mlp.c_fc",
        "mlp.c_fc": "mlp.c_proj",
        "mlp.c_proj": NEXT_BLOCK,
    },
    block_inputs=frozenset({"attn.c_attn"}),
    attention=frozenset({"attn.c_attn", "attn.c_proj"}),
)

_EXPERTS = {"mlp.experts.*.gate_up_proj": "mlp.experts.*.down_proj"}
_SHARED = {
    f"mlp.{shared}.{name}_proj": f"mlp.{shared}.down_proj"
    for shared in ("shared_expert", "shared_experts")
    for name in ("gate", "up")
}

# As GATED, with experts in some or all blocks. Their router, which stays dense, is the first
# linear of the MLP that reads the output of the attention layer.
EXPERTS = replace(
    GATED, consumers={**GATED.consumers, **_EXPERTS, **_SHARED}, halves=frozenset(_EXPERTS)
)

GPT_OSS = replace(EXPERTS, halves=frozenset(), pairs=frozenset(_EXPERTS))

_LATENT = ("self_attn.q_a_proj", "self_attn.q_b_proj")
_LATENT_KV = ("self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj")

# Multi-head latent attention, whose queries are projected twice if the model is large.
DEEPSEEK = replace(
    EXPERTS,
    consumers={
        **EXPERTS.consumers,
        _LATENT[0]: _LATENT[1],
        _LATENT[1]: "self_attn.o_proj",
        _LATENT_KV[0]: _LATENT_KV[1],
        _LATENT_KV[1]: "self_attn.o_proj",
    },
    block_inputs=frozenset({"self_attn.q_proj", _LATENT[0], _LATENT_KV[0]}),
    attention=frozenset({"self_attn.q_proj", *_LATENT, *_LATENT_KV, "self_attn.o_proj"}),
)

# Maps `config.model_type` to a family. The row step needs an entry.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        (
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3_text",
            "olmo",
            "olmo2",
            "qwen2_vl_text",
        ),
        GATED,
    ),
    "phi": PHI,
    "opt": OPT,
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"), EXPERTS),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), DEEPSEEK),
    "gpt_oss": GPT_OSS,
    "gpt2": GPT2,
    "openai-gpt": GPT2,
}


def register_family(model_type: str, family: Family) -> None:
    """Declare the data flow of `model_type` (``config.model_type``) to enable the row step."""
    FAMILIES[model_type] = family
