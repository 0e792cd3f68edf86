"""Data flow between the linears of a decoder block, declared per model family.

NeuroAL's row step scores the rows (outputs) of a linear at the input of the next linear that
reads them (arXiv 2411.07066, section 3.3). Which linear that is depends on the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NEXT_BLOCK = "<next block>"


@dataclass(frozen=True)
class Family:
    """Data flow between the linears of one block.

    Attributes:
        consumers: maps the name of a linear (inside its block) to the name of the first linear
            that reads its output, or to ``NEXT_BLOCK`` if the next block contains that linear.
        block_inputs: linears that read the normalised input of the block, which does not change
            when the block is pruned.
        attention: linears of the attention layer; None if not declared.
    """

    consumers: Mapping[str, str]
    block_inputs: frozenset[str]
    attention: frozenset[str] | None = None

    def producers(self, name: str) -> set[str]:
        """Return all linears of the block from which data flows into linear `name`."""
        if name in self.block_inputs:
            return set()
        direct = {source for source, consumer in self.consumers.items() if consumer == name}
        return direct.union(*(self.producers(source) for source in direct))


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

# Maps `config.model_type` to a family. The row step needs an entry.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2"),
        GATED,
    ),
    "phi": PHI,
    "opt": OPT,
    "gpt2": GPT2,
    "openai-gpt": GPT2,
}


def register_family(model_type: str, family: Family) -> None:
    """Declare the data flow of `model_type` (``config.model_type``) to enable the row step."""
    FAMILIES[model_type] = family
