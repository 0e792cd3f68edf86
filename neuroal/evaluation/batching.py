"""Choose a batch size for passes whose memory is dominated by the logits."""

from __future__ import annotations

from typing import Any

from neuroal.execution.memory import ENOUGH_TOKENS, SHARE, TENSORS_ALIVE, free_memory
from neuroal.placement.base import placement_of

MOST = 256
"""Maximum batch size on a GPU; larger batches do not increase its throughput."""
MOST_ON_CPU = 4
"""Batch size on a CPU; larger batches overflow its caches and the allocator's pool."""


def batch_for_logits(model: Any, seqlen: int) -> int:
    """Return the number of windows of `seqlen` tokens for one forward pass, at least 1.

    A token takes 2 · vocabulary numbers in the model's dtype, 1 · vocabulary in float32, and the
    activations of the widest layer. A batch may fill the share `SHARE` of the free memory.
    """
    config = model.config.get_text_config()
    device = model.device
    if device.type == "cpu":
        return MOST_ON_CPU
    widest = max(int(getattr(config, "intermediate_size", 0) or 0), 4 * int(config.hidden_size))
    logits = int(config.vocab_size) * (2 * model.dtype.itemsize + 4)
    numbers = seqlen * (logits + 4 * TENSORS_ALIVE * widest)
    most = -(-ENOUGH_TOKENS // seqlen) if placement_of(model).offloads else MOST
    return int(max(1, min(most, SHARE * free_memory(device) // numbers)))
