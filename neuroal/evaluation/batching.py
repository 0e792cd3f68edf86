"""How many windows or requests a model takes at once where their logits are what fills memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from neuroal.fitting import Batch
from neuroal.memory import ENOUGH_TOKENS, SHARE, TENSORS_ALIVE, free_memory
from neuroal.placement.base import placement_of

MOST = 256
"""Beyond this many a GPU is busy anyway."""
MOST_ON_CPU = 4
"""More logits leave the caches of a CPU, and the memory the allocator keeps, and are slower."""
Result = TypeVar("Result")


def batch_for_logits(model: Any, seqlen: int) -> int:
    """Windows of `seqlen` tokens in one forward pass: at least 1.

    A window takes seqlen × (2 · vocabulary in the model's dtype + 1 · vocabulary in float32, and
    the activations of its widest layer); a quarter of the free memory may be filled.
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


def halving(batch: int, work: Callable[[int], Result]) -> Result:
    """`work` with `batch`, or with half of it as often as memory does not suffice; it says so."""
    return Batch("evaluate", batch).fit(work)
