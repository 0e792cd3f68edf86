"""Final norm and logits of a model, computed from the output of its last block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from neuroal.execution.runner import BlockRunner
from neuroal.models.forwards import replaced_forward

CHUNK = 512
"""Maximum number of tokens whose logits are in memory at once."""


def logits_of(runner: BlockRunner, hidden: Tensor) -> Tensor:
    """Compute logits in float32: (windows, tokens, hidden) → (windows, tokens, vocabulary).

    The model runs with each block replaced by a function that returns `hidden`, so that it applies
    its own final layers (norms, projections, soft-capping). Supports autograd.
    """
    decoder = runner.decoder
    tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=decoder.device)
    with ExitStack() as stack:
        for index, block in enumerate(decoder.blocks):
            stack.enter_context(replaced_forward(block, _returning(runner, index, hidden)))
        logits: Tensor = decoder.model(tokens, use_cache=False).logits
    return logits.float()


@torch.no_grad()
def logits_by_chunks(runner: BlockRunner, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the first position and the logits of each chunk of one window (seqlen, hidden)."""
    for begin in range(0, len(hidden), CHUNK):
        yield begin, logits_of(runner, hidden[None, begin : begin + CHUNK])[0]


def _returning(runner: BlockRunner, index: int, hidden: Tensor) -> Any:
    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return runner.probe.outputs[index](hidden)

    return forward
