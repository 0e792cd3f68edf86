"""What a model makes of the output of its last block: the final norm and the logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, replaced_forward

CHUNK = 512
"""Tokens whose logits are alive at once."""


def logits_of(runner: BlockRunner, hidden: Tensor) -> Tensor:
    """Logits (windows, tokens, vocabulary) in float32 for hidden states that leave the last block.

    The model itself is run with its blocks replaced by ones that hand on `hidden`, so whatever
    follows them (norms, projections, soft-capping) is the model's own. Gradients flow where they
    are enabled.

    Args:
        runner: of the model.
        hidden: (windows, tokens, hidden).
    """
    subject = runner.subject
    tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=subject.device)
    with ExitStack() as stack:
        for index, block in enumerate(subject.blocks):
            stack.enter_context(replaced_forward(block, _returning(runner, index, hidden)))
        logits: Tensor = subject.model(tokens, use_cache=False).logits
    return logits.float()


@torch.no_grad()
def logits_by_chunks(runner: BlockRunner, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Logits for the hidden states (seqlen, hidden) of one window, a few tokens at a time.

    Yields:
        Position of the first token of the chunk, and its logits (tokens, vocabulary) in float32.
    """
    for begin in range(0, len(hidden), CHUNK):
        yield begin, logits_of(runner, hidden[None, begin : begin + CHUNK])[0]


def _returning(runner: BlockRunner, index: int, hidden: Tensor) -> Any:
    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return (hidden,) if runner.returns_tuple(index) else hidden

    return forward
