"""Labels drawn from the predictions of a model, one per token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroal.execution.lm_head import logits_of
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.head import chunks_of

LABEL_SHARE = 4
"""Divisor of the tokens of a chunk: cumulative probabilities take more memory than logits."""


@torch.no_grad()
def draw_labels(
    runner: BlockRunner, hidden: Sequence[Tensor], windows: Sequence[int], seed: int
) -> dict[int, Tensor]:
    """Draw y ~ p(· | context) for every token, from last hidden states of the dense model.

    The draw of a window depends on the seed and on the window's index only: one uniform number per
    token, from a generator on the CPU, is looked up in the cumulative probabilities (in float64).

    Args:
        runner: the model.
        hidden: last hidden states (windows, seqlen, hidden) of this device's windows, by batch.
        windows: index of every window, of all devices and in their order.
        seed: seed of the draws.

    Returns:
        Index of a window → its labels (seqlen,) int64 on the CPU.
    """
    seqlen, share = hidden[0].shape[1], runner.share
    own = [windows[index] for index in share.windows]
    uniform = {window: _uniform(seqlen, seed, window) for window in own}
    labels = {window: torch.empty(seqlen, dtype=torch.long) for window in own}
    for chunk in chunks_of(runner, hidden, own):
        logits = logits_of(runner, hidden[chunk.part][chunk.rows, chunk.positions])
        for row, window in zip(logits, chunk.windows, strict=True):
            numbers = uniform[window][chunk.positions].to(row.device)
            size = -(-len(row) // LABEL_SHARE)
            parts = zip(row.split(size), numbers.split(size), strict=True)
            drawn = torch.cat([_draw(part, number) for part, number in parts])
            labels[window][chunk.positions] = drawn.cpu()
    return dict(zip(windows, share.joined(torch.stack(list(labels.values()))), strict=True))


def _uniform(seqlen: int, seed: int, window: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + window) % 2**63)
    return torch.rand(seqlen, generator=generator, dtype=torch.float64)


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return the label of each token: logits (tokens, V), uniform (tokens,) in [0, 1)."""
    cumulative = logits.softmax(-1).double().cumsum(-1)
    thresholds = (uniform * cumulative[:, -1])[:, None]
    drawn = torch.searchsorted(cumulative, thresholds, right=True)[:, 0]
    return drawn.clamp(max=logits.shape[-1] - 1)
