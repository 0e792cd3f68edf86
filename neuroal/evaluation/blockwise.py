"""Losses of an offloaded model, whose blocks are each copied to the device once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroal.execution.lm_head import logits_by_chunks
from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.replay import Replay
from neuroal.models.adapter import DecoderModel, find_blocks
from neuroal.models.selection import linears_of
from neuroal.tracking.progress import Progress, QuietProgress


@torch.no_grad()
def window_losses_by_block(
    model: PreTrainedModel, windows: Tensor, batch: int, progress: Progress | None = None
) -> Tensor:
    """Return the mean cross-entropy of tokens 1 … seqlen − 1 of each window: (windows,) float32.

    All windows pass through a block before the next block is fetched, so the weights are copied
    once, not once per batch. The `batch` is reduced if memory does not suffice.
    """
    decoder = DecoderModel(model, include=names_of_linears(model))
    replay = Replay(decoder, windows, AdaptiveBatch("evaluate", batch, divides=True))
    with (progress or QuietProgress()).stage("evaluate", len(decoder), "block") as step:
        for index, _ in decoder.walk():
            replay.advance(index)
            step.advance()
    targets = windows.to(decoder.device)
    hidden = (window for part in replay for window in part)
    losses = [_loss(replay, *pair) for pair in zip(hidden, targets, strict=True)]
    return torch.stack(losses)


def _loss(replay: Replay, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean loss of one window, from its last hidden states (seqlen, hidden)."""
    total = torch.zeros((), device=hidden.device)
    for begin, logits in logits_by_chunks(replay.runner, hidden[:-1]):
        targets = tokens[begin + 1 : begin + 1 + len(logits)]
        total += nn.functional.cross_entropy(logits, targets, reduction="sum")
    return total / (len(tokens) - 1)


def names_of_linears(model: PreTrainedModel) -> list[str]:
    """Return the names of all linears in the blocks; evaluation prunes none of them."""
    blocks = enumerate(find_blocks(model)[1])
    return sorted({linear.name for index, block in blocks for linear in linears_of(index, block)})
