"""Perplexity over windows of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean window loss, with its standard error."""

    value: float
    stderr: float
    windows: int


@torch.no_grad()
def perplexity(model: nn.Module, windows: Tensor, batch: int = 8) -> Perplexity:
    """exp(mean over windows of the mean cross-entropy of their predicted tokens).

    Args:
        model: causal language model.
        windows: token ids (windows, seqlen).
        batch: windows in one forward pass.
    """
    device = next(model.parameters()).device
    losses = []
    for part in windows.split(batch):
        logits = model(part.to(device), use_cache=False).logits
        for scores, tokens in zip(logits, part.to(device), strict=True):
            losses.append(nn.functional.cross_entropy(scores[:-1].float(), tokens[1:]))
    values = torch.stack(losses).double().cpu()
    mean = values.mean().exp()
    stderr = mean * values.std() / len(values) ** 0.5
    return Perplexity(float(mean), float(stderr), len(values))
