"""Who consumes whose output inside a decoder block: one description a family.

NeuroAL's row step scores the rows (outputs) of a linear by what happens at the place where
these outputs are read next (arXiv 2411.07066, section 3.3). That is a fact about an
architecture, so it is declared here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NEXT_BLOCK = "<next block>"


@dataclass(frozen=True)
class Family:
    """The flow of data through the linears of one block.

    Attributes:
        consumers: name of a linear (inside its block) → name of the first linear that reads its
            output, or ``NEXT_BLOCK`` where that is in the next block.
        block_inputs: the linears that read the block's own (normalised) input. No linear of the
            block precedes them, so pruning the block cannot change what they read.
        refined: the linears whose masks DSnoT changes in its authors' code; None: all.
    """

    consumers: Mapping[str, str]
    block_inputs: frozenset[str]
    refined: frozenset[str] | None = None

    def producers(self, name: str) -> set[str]:
        """All linears of the block from which data flows into linear `name`."""
        if name in self.block_inputs:
            return set()
        direct = {source for source, consumer in self.consumers.items() if consumer == name}
        return direct.union(*(self.producers(source) for source in direct))


_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

# Attention, then a gated MLP, one after the other: LLaMA and those that follow it.
GATED = Family(
    consumers={
        **dict.fromkeys(_ATTENTION, "self_attn.o_proj"),
        "self_attn.o_proj": "mlp.gate_proj",
        "mlp.gate_proj": "mlp.down_proj",
        "mlp.up_proj": "mlp.down_proj",
        "mlp.down_proj": NEXT_BLOCK,
    },
    block_inputs=frozenset(_ATTENTION),
    refined=frozenset({*_ATTENTION, "self_attn.o_proj"}),
)

# Attention and MLP read the same normalised input: `fc1` sees no pruned linear of its block.
PHI = Family(
    consumers={
        **dict.fromkeys(_ATTENTION, "self_attn.dense"),
        "self_attn.dense": "mlp.fc1",
        "mlp.fc1": "mlp.fc2",
        "mlp.fc2": NEXT_BLOCK,
    },
    block_inputs=frozenset({*_ATTENTION, "mlp.fc1"}),
    refined=frozenset({*_ATTENTION, "self_attn.dense"}),
)

OPT = Family(
    consumers={
        **dict.fromkeys(_ATTENTION, "self_attn.out_proj"),
        "self_attn.out_proj": "fc1",
        "fc1": "fc2",
        "fc2": NEXT_BLOCK,
    },
    block_inputs=frozenset(_ATTENTION),
    refined=frozenset({*_ATTENTION, "self_attn.out_proj"}),
)

# `config.model_type` → family. Add an entry to give another architecture the row step.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2"),
        GATED,
    ),
    "phi": PHI,
    "opt": OPT,
}


def register_family(model_type: str, family: Family) -> None:
    """Declare the data flow of `model_type` (``config.model_type``), which enables the row step."""
    FAMILIES[model_type] = family
