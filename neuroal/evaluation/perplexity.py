"""Perplexity over windows of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.evaluation.batching import batch_for_logits
from neuroal.evaluation.blockwise import names_of_linears, window_losses_by_block
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.models.tokens import check_tokens
from neuroal.parallel.replicated import group_of, together
from neuroal.placement.base import placement_of
from neuroal.tracking.progress import Progress, QuietProgress


@dataclass(frozen=True)
class Perplexity:
    """Perplexity and its standard error, over a number of windows.

    If the losses are not finite, the value is infinite. The standard error is None then, and for a
    single window.
    """

    value: float
    stderr: float | None
    windows: int


def perplexity(
    model: Any, windows: Tensor, batch: int | None = None, progress: Progress | None = None
) -> Perplexity:
    """Return exp(mean over windows of the mean cross-entropy of their predicted tokens).

    Computes the loss in float32. The standard error is that of the mean window loss, propagated
    through the exponential: value · std / sqrt(windows).

    Args:
        model: causal language model.
        windows: token ids (windows, seqlen).
        batch: windows in one forward pass; None: chosen by free memory.
        progress: receives a stage of all windows; None: nothing is shown.

    Raises:
        UserError: a token id has no row in the model's embedding.
    """
    check_tokens(model, windows, "task: the text has")
    size = batch or batch_for_logits(model, windows.shape[1])
    batching, progress = AdaptiveBatch("evaluate", size), progress or QuietProgress()
    if group_of(model) is None:
        losses = batching.run(lambda n: window_losses(model, windows, n, progress))
    else:
        decoder = DecoderModel(model, include=names_of_linears(model))
        losses = together(decoder, _losses_of_all, windows, batching, progress=progress)
    losses = losses.double().cpu()
    mean = losses.mean().exp()
    if not torch.isfinite(mean):
        return Perplexity(math.inf, None, len(losses))
    stderr = float(mean * losses.std() / len(losses) ** 0.5) if len(losses) > 1 else None
    return Perplexity(float(mean), stderr, len(losses))


def _losses_of_all(
    decoder: DecoderModel, windows: Tensor, batch: AdaptiveBatch, *, progress: Progress
) -> Tensor:
    """Return the losses of all windows, of which each device computes its share."""
    batch.peers = decoder.peers
    share = decoder.peers.share(len(windows))
    own = share.of(windows)
    return share.joined(batch.run(lambda n: window_losses(decoder.model, own, n, progress)))


@torch.no_grad()
def window_losses(
    model: Any, windows: Tensor, batch: int, progress: Progress | None = None
) -> Tensor:
    """Return the mean cross-entropy of tokens 1 … seqlen − 1 of each window: (windows,) float32."""
    if placement_of(model).offloads:
        return window_losses_by_block(model, windows, batch, progress)
    device = next(model.parameters()).device
    # One tensor for all: small ones between the logits of two batches would fragment host memory.
    losses = torch.empty(len(windows), device=device)
    with (progress or QuietProgress()).stage("evaluate", len(windows), "window") as step:
        for part, own in zip(windows.split(batch), losses.split(batch), strict=True):
            tokens = part.to(device)
            logits = model(tokens, use_cache=False).logits
            for number, (scores, targets) in enumerate(zip(logits, tokens, strict=True)):
                own[number] = nn.functional.cross_entropy(scores[:-1].float(), targets[1:])
            step.advance(len(part))
    return losses
