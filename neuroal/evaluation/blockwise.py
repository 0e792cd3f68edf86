"""Losses of a model whose blocks take turns on the device: each block comes there once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroal.fitting import Batch
from neuroal.head import logits_by_chunks
from neuroal.models.adapter import DecoderModel, find_blocks
from neuroal.replay import Replay


@torch.no_grad()
def window_losses_by_block(model: PreTrainedModel, windows: Tensor, batch: int) -> Tensor:
    """Mean cross-entropy of the tokens 1 … seqlen − 1 of each window: (windows,) float32.

    All windows go through a block before the next one is fetched, so the weights are moved once,
    not once a batch.

    Args:
        model: with any placement.
        windows: token ids (windows, seqlen).
        batch: windows in one forward pass; fewer, should memory not suffice.
    """
    subject = DecoderModel(model, include=_linears(model))
    replay = Replay(subject, windows, Batch("evaluate", batch, divides=True))
    for index, _ in subject.walk():
        replay.advance(index)
    targets = windows.to(subject.device)
    hidden = (window for part in replay for window in part)
    losses = [_loss(replay, *pair) for pair in zip(hidden, targets, strict=True)]
    return torch.stack(losses)


def _loss(replay: Replay, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Mean loss of one window, from its last hidden states (seqlen, hidden)."""
    total = torch.zeros((), device=hidden.device)
    for begin, logits in logits_by_chunks(replay.runner, hidden[:-1]):
        wanted = tokens[begin + 1 : begin + 1 + len(logits)]
        total += nn.functional.cross_entropy(logits, wanted, reduction="sum")
    return total / (len(tokens) - 1)


def _linears(model: PreTrainedModel) -> list[str]:
    """Names of all linears inside the blocks: an evaluation prunes none, so any will do."""

    def names() -> Iterator[str]:
        for block in find_blocks(model)[1]:
            yield from (n for n, part in block.named_modules() if isinstance(part, nn.Linear))

    return sorted(set(names()))
