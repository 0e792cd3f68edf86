"""Losses at the output of a model, and their gradients at the last hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.execution.lm_head import logits_of
from neuroal.execution.runner import BlockRunner

LOGIT_BYTES = {"cuda": 2**28, "cpu": 2**25}
"""Size of one chunk of float32 logits; about six tensors of this size exist at a time."""


@dataclass(frozen=True)
class Chunk:
    """Tokens whose logits are computed together.

    Attributes:
        part: index of the batch that holds the tokens.
        rows: windows of the chunk within its batch.
        positions: positions of the tokens in their windows.
        windows: indices of the windows among all search windows.
    """

    part: int
    rows: slice
    positions: slice
    windows: list[int]


LossOf = Callable[[Tensor, Chunk], Tensor]
"""Return the sum of a loss over the tokens of a chunk, from their logits (windows, tokens, V)."""


def chunks_of(
    runner: BlockRunner, hidden: Sequence[Tensor], windows: Sequence[int]
) -> Iterator[Chunk]:
    """Yield the tokens of `hidden` in chunks of at most `LOGIT_BYTES` of logits.

    Args:
        runner: the model.
        hidden: last hidden states (windows, seqlen, hidden), one tensor per batch.
        windows: index of every window, in the order of `hidden`.
    """
    decoder = runner.decoder
    token_bytes = 4 * int(decoder.model.config.get_text_config().vocab_size)
    chunk_bytes = LOGIT_BYTES["cuda" if decoder.device.type == "cuda" else "cpu"]
    begin = 0
    for number, part in enumerate(hidden):
        indices = list(windows[begin : begin + len(part)])
        begin += len(part)
        seqlen = part.shape[1]
        many = max(1, chunk_bytes // (token_bytes * seqlen))
        width = max(1, min(seqlen, chunk_bytes // token_bytes))
        for w in range(0, len(part), many):
            for t in range(0, seqlen, width):
                rows, positions = slice(w, w + many), slice(t, t + width)
                yield Chunk(number, rows, positions, indices[rows])


@torch.no_grad()
def output_loss(
    runner: BlockRunner, hidden: Sequence[Tensor], windows: Sequence[int], loss_of: LossOf
) -> float:
    """Return the sum of a loss over all tokens of `hidden`."""
    losses = [
        loss_of(logits_of(runner, hidden[chunk.part][chunk.rows, chunk.positions]), chunk)
        for chunk in chunks_of(runner, hidden, windows)
    ]
    return float(torch.stack(losses).sum())


def output_gradients(
    runner: BlockRunner,
    hidden: Sequence[Tensor],
    windows: Sequence[int],
    loss_of: LossOf,
    scale: float = 1.0,
) -> tuple[Tensor, list[Tensor]]:
    """Return the sum of a loss over all tokens, and the gradient of `scale` times it at `hidden`.

    The sum instead of the mean keeps half-precision gradients away from underflow. It is a tensor
    (), since reading it would wait for a GPU.
    """
    gradients = [torch.zeros_like(part) for part in hidden]
    losses = []
    for chunk in chunks_of(runner, hidden, windows):
        where = (chunk.rows, chunk.positions)
        with torch.enable_grad():
            leaf = hidden[chunk.part][where].detach().requires_grad_(True)
            loss = loss_of(logits_of(runner, leaf), chunk)
            (gradient,) = torch.autograd.grad(loss * scale, leaf)
        losses.append(loss.detach())
        gradients[chunk.part][where] = gradient
    return torch.stack(losses).sum(), gradients
