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


@torch.no_grad()
def logits_by_chunks(runner: BlockRunner, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Logits for the hidden states (seqlen, hidden) that leave the last block in one window.

    The model itself is run on a few tokens at a time with its blocks replaced by ones that hand
    on `hidden`, so whatever follows them (norms, projections, soft-capping) is the model's own.

    Yields:
        Position of the first token of the chunk, and its logits (tokens, vocabulary) in float32.
    """
    subject = runner.subject
    for begin in range(0, len(hidden), CHUNK):
        part = hidden[begin : begin + CHUNK][None]
        tokens = torch.zeros(part.shape[:2], dtype=torch.long, device=subject.device)
        with ExitStack() as stack:
            for index, block in enumerate(subject.blocks):
                stack.enter_context(replaced_forward(block, _returning(runner, index, part)))
            logits = subject.model(tokens, use_cache=False).logits[0].float()
        yield begin, logits


def _returning(runner: BlockRunner, index: int, hidden: Tensor) -> Any:
    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return (hidden,) if runner.returns_tuple(index) else hidden

    return forward
