"""Scores of weights that are compared over a whole model: their digits and the mask of the lowest.

Non-negative float32 numbers have the order of their bit patterns, read as integers. A digit is a
group of these bits. This PyTorch implementation defines the results of the GPU kernels in
`global_scores_triton`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroal.kernels.score_terms import ScoreTerms
from neuroal.kernels.selection import has_triton


def digit_histogram(
    weight: Tensor, terms: ScoreTerms, prefix: int, shift: int, width: int
) -> Tensor:
    """Count the values of one digit among the scores whose higher bits equal `prefix`.

    Args:
        weight: (rows, cols).
        terms: terms of its scores.
        prefix: required value of the bits above the digit.
        shift: number of bits below the digit.
        width: number of bits of the digit.

    Returns:
        (2^width,) int64, on the device of `weight`.
    """
    if _has_kernel(weight):
        from neuroal.kernels import global_scores_triton

        return global_scores_triton.digit_histogram(weight, terms, prefix, shift, width)
    bits = terms.scores(weight).view(torch.int32).flatten() >> shift
    if prefix or shift + width < 31:
        bits = bits[(bits >> width) == prefix]
    return torch.bincount(bits & (2**width - 1), minlength=2**width)


def mask_below(weight: Tensor, terms: ScoreTerms, threshold: int, ties: int) -> Tensor:
    """Return the mask (rows, cols) of the scores below `threshold`, and of the first ties.

    Args:
        weight: (rows, cols).
        terms: terms of its scores.
        threshold: bit pattern of a score.
        ties: number of scores equal to `threshold` to include, in row-major order.
    """
    bits = terms.scores(weight).view(torch.int32).contiguous()  # of a transposed view, too
    mask = bits < threshold
    if ties:
        tied = (bits == threshold).flatten().nonzero()[:ties, 0]
        mask.view(-1)[tied] = True
    return mask


def zeroed_below(
    weight: Tensor, terms: ScoreTerms, threshold: int, ties: int, all_ties: bool
) -> Tensor:
    """Return a copy of `weight` with zeros where `mask_below` is True.

    `all_ties` tells that `ties` is the number of all scores equal to `threshold`.
    """
    if _has_kernel(weight) and (all_ties or not ties):
        from neuroal.kernels import global_scores_triton

        return global_scores_triton.zeroed_below(weight, terms, threshold + int(all_ties))
    return weight.masked_fill(mask_below(weight, terms, threshold, ties), 0)


def _has_kernel(weight: Tensor) -> bool:
    return weight.is_cuda and weight.is_contiguous() and len(weight) > 0 and has_triton()
