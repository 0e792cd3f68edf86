"""Perplexity over windows of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.evaluation.blockwise import window_losses_by_block
from neuroal.placement.base import placement_of


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean window loss, with its standard error."""

    value: float
    stderr: float
    windows: int


def perplexity(model: nn.Module, windows: Tensor, batch: int = 8) -> Perplexity:
    """exp(mean over windows of the mean cross-entropy of their predicted tokens).

    Args:
        model: causal language model.
        windows: token ids (windows, seqlen).
        batch: windows in one forward pass.
    """
    values = window_losses(model, windows, batch).double().cpu()
    mean = values.mean().exp()
    stderr = mean * values.std() / len(values) ** 0.5
    return Perplexity(float(mean), float(stderr), len(values))


@torch.no_grad()
def window_losses(model: Any, windows: Tensor, batch: int) -> Tensor:
    """Mean cross-entropy of the tokens 1 … seqlen − 1 of each window: (windows,) float32."""
    if placement_of(model).offloads:
        return window_losses_by_block(model, windows, batch)
    device = next(model.parameters()).device
    losses = []
    for part in windows.split(batch):
        tokens = part.to(device)
        logits = model(tokens, use_cache=False).logits
        for scores, targets in zip(logits, tokens, strict=True):
            losses.append(nn.functional.cross_entropy(scores[:-1].float(), targets[1:]))
    return torch.stack(losses)
