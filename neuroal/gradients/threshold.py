"""The lowest scores of a whole model, selected by counting instead of sorting.

Four histograms, of the first 7 bits of a score after the sign and then of 8 bits each among the
scores that share all bits before, give the exact threshold. No scores are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.gradients.by_linear import ByLinear
from neuroal.kernels.global_scores import digit_histogram, mask_below, zeroed_below
from neuroal.kernels.score_terms import ScoreTerms
from neuroal.models.adapter import DecoderModel, PrunableLinear

DIGITS = ((24, 7), (16, 8), (8, 8), (0, 8))
"""Shift and number of bits of each digit, from the highest to the lowest."""

TermsOf = Callable[[PrunableLinear], ScoreTerms]
"""Return the terms of the scores of a linear, whose block is present."""


@dataclass(frozen=True)
class Threshold:
    """The K lowest scores of a model: those below `bits`, and the first ones equal to it.

    Attributes:
        bits: bit pattern of the K-th lowest score, as an integer.
        ties: for each linear, how many scores equal it, and how many of these are among the lowest.
    """

    bits: int
    ties: Mapping[str, tuple[int, int]]

    def mask(self, linear: PrunableLinear, terms: ScoreTerms) -> Tensor:
        """Return the mask (rows, cols) of the lowest scores of `linear`."""
        return mask_below(linear.weight, terms, self.bits, self.ties[linear.key][1])

    def zeroed(self, linear: PrunableLinear, terms: ScoreTerms) -> Tensor:
        """Return a copy of the weight of `linear` without the weights of the lowest scores."""
        equal, lowest = self.ties[linear.key]
        return zeroed_below(linear.weight, terms, self.bits, lowest, all_ties=equal == lowest)


@torch.no_grad()
def lowest_of_model(decoder: DecoderModel, terms_of: TermsOf, zeros: int) -> Threshold:
    """Return the threshold of the `zeros` lowest scores of the model.

    Of equal scores, those earlier in the model (block, linear, row, column) count first.
    """
    prefix, remaining, shares = 0, zeros, ByLinear(decoder)
    for shift, width in DIGITS:
        counts = _histograms(shares, terms_of, prefix, shift, width)
        running = torch.stack(list(counts.values())).sum(0).cumsum(0)
        digit = int((running < remaining).sum())
        remaining -= int(running[digit - 1]) if digit else 0
        prefix = (prefix << width) | digit
    ties = {}
    for key, count in counts.items():
        equal = int(count[digit])
        ties[key] = equal, min(remaining, equal)
        remaining -= ties[key][1]
    return Threshold(prefix, ties)


def _histograms(
    shares: ByLinear, terms_of: TermsOf, prefix: int, shift: int, width: int
) -> dict[str, Tensor]:
    """Return the histogram (2^width,) of a digit on the CPU, by linear."""

    def histogram(linear: PrunableLinear) -> Tensor:
        return digit_histogram(linear.weight, terms_of(linear), prefix, shift, width)

    counts = shares.counts(histogram, lambda _: 2**width)
    return dict(zip(counts, torch.stack(list(counts.values())).cpu(), strict=True))
