"""Labels drawn from the predictions of a model, one per token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroal.execution.lm_head import logits_of
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.head import chunks_of

GROUP = 256
"""Neighbouring entries of the vocabulary whose probabilities are summed first."""


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
    device, row_of = hidden[0].device, {window: row for row, window in enumerate(own)}
    uniform = torch.stack([_uniform(seqlen, seed, window) for window in own]).to(device)
    labels = torch.empty(uniform.shape, dtype=torch.long, device=device)
    for chunk in chunks_of(runner, hidden, own):
        logits = logits_of(runner, hidden[chunk.part][chunk.rows, chunk.positions])
        first = row_of[chunk.windows[0]]
        where = (slice(first, first + len(chunk.windows)), chunk.positions)
        drawn = _draw(logits.flatten(0, 1), uniform[where].flatten())
        labels[where] = drawn.view(logits.shape[:2])
    return dict(zip(windows, share.joined(labels.cpu()), strict=True))


def _uniform(seqlen: int, seed: int, window: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + window) % 2**63)
    return torch.rand(seqlen, generator=generator, dtype=torch.float64)


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return the label of each token: logits (tokens, V), uniform (tokens,) in [0, 1).

    The cumulative probabilities of groups of entries decide about the group, those of its entries
    about the label, so that they need not be computed for all entries.
    """
    vocabulary = logits.shape[-1]
    padded = nn.functional.pad(logits.softmax(-1), (0, -vocabulary % GROUP))
    groups = padded.unflatten(-1, (-1, GROUP))
    cumulative = groups.sum(-1, dtype=torch.float64).cumsum(-1)
    thresholds = (uniform * cumulative[:, -1])[:, None]
    group = _first_above(cumulative, thresholds)
    before = nn.functional.pad(cumulative, (1, 0)).gather(1, group)
    entries = groups.gather(1, group[:, :, None].expand(-1, -1, GROUP))[:, 0]
    entry = _first_above(entries.double().cumsum(-1), thresholds - before)
    return (group * GROUP + entry)[:, 0].clamp(max=vocabulary - 1)


def _first_above(cumulative: Tensor, thresholds: Tensor) -> Tensor:
    """Return the index of the first entry above the threshold, or the last one: (tokens, 1)."""
    index = torch.searchsorted(cumulative, thresholds, right=True)
    return index.clamp(max=cumulative.shape[-1] - 1)
