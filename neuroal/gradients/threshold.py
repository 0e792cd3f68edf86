"""The lowest scores of a whole model, selected by counting instead of sorting.

Non-negative float32 numbers have the order of their bit patterns, read as integers. Three
histograms, of the first 11 bits after the sign and then of 10 bits each among the scores that share
all bits before, give the exact threshold. Only the scores of one block exist at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.models.adapter import DecoderModel, PrunableLinear

DIGITS = ((20, 11), (10, 10), (0, 10))
"""Shift and number of bits of each digit, from the highest to the lowest."""

ScoresOf = Callable[[PrunableLinear], Tensor]
"""Return the scores of a linear, (rows, cols) float32, at least 0; its block is present."""


@dataclass(frozen=True)
class Threshold:
    """The K lowest scores of a model: those below `bits`, and the first ones equal to it.

    Attributes:
        bits: bit pattern of the K-th lowest score, as an integer.
        ties: number of scores equal to it that count among the lowest, by linear.
    """

    bits: int
    ties: Mapping[str, int]

    def mask(self, key: str, scores: Tensor) -> Tensor:
        """Return the mask of the lowest `scores` (rows, cols) of linear `key`."""
        bits = scores.view(torch.int32)
        mask = bits < self.bits
        if self.ties[key]:
            tied = (bits == self.bits).flatten().nonzero()[: self.ties[key], 0]
            mask.view(-1)[tied] = True
        return mask


@torch.no_grad()
def lowest_of_model(decoder: DecoderModel, scores_of: ScoresOf, zeros: int) -> Threshold:
    """Return the threshold of the `zeros` lowest scores of the model.

    Of equal scores, those earlier in the model (block, linear, row, column) count first.
    """
    prefix, remaining = 0, zeros
    counts: dict[str, Tensor] = {}
    for shift, width in DIGITS:
        for _, linears in decoder.walk():
            for linear in linears:
                counts[linear.key] = _histogram(scores_of(linear), prefix, shift, width)
        running = torch.stack([*counts.values()]).sum(0).cumsum(0)
        digit = int((running < remaining).sum())
        remaining -= int(running[digit - 1]) if digit else 0
        prefix = (prefix << width) | digit
    ties = {}
    for key, count in counts.items():
        ties[key] = min(remaining, int(count[digit]))
        remaining -= ties[key]
    return Threshold(prefix, ties)


def _histogram(scores: Tensor, prefix: int, shift: int, width: int) -> Tensor:
    """Count the values of one digit among the scores whose higher bits equal `prefix`."""
    bits = scores.view(torch.int32).flatten() >> shift
    if prefix or shift + width < 31:
        bits = bits[(bits >> width) == prefix]
    return torch.bincount(bits & (2**width - 1), minlength=2**width).cpu()
