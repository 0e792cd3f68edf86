"""AlphaPruning: prune blocks more if the spectra of their weights have lighter tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.sparsity.schedule import clip_blocks, plan_of_blocks
from neuroal.topups.base import Allocation, AllocationContext, TopUp

OPERATIONS = 10.0
"""Operations per weight and input of a linear, of its singular values."""
BINS = 100
"""Bins of the histogram of log10 eigenvalues."""


@dataclass(frozen=True)
class AlphaPruning(TopUp):
    """Set block sparsities by the power-law exponents of the weight spectra, without calibration.

    α of a linear is the exponent of its squared singular values (`hill_exponent`), and α_b is the
    mean over the linears of block b. The sparsity of block b is::

        s_b = η·((α_b − min α)/(max α − min α)·2ε + 1 − ε)

    with η such that the mean, weighted by the numbers of parameters, is s.

    Source: Lu et al., 2024 (arXiv 2410.10912), section 3, mapped block-wise as in its experiments.

    Args:
        epsilon: ε. The authors tune it per model, pruner and sparsity. At 70 % they publish 0.3 for
            magnitude and 0.2 for Wanda and SparseGPT on LLaMA-7B, and 0.3 on Llama-2-7B.
    """

    epsilon: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise UserError(f"topup.epsilon={self.epsilon}: must be at least 0 and below 1")

    def operations_per_weight(self, cols: float) -> float:
        return OPERATIONS * cols

    def allocate(self, context: AllocationContext) -> Allocation:
        decoder, settings = context.decoder, context.settings
        exponents: dict[int, float] = {}
        with context.progress.stage("fit spectra", len(decoder), "block") as step:
            for index, linears in decoder.walk():
                if linears:
                    exponents[index] = float(np.mean([exponent_of(linear) for linear in linears]))
                step.advance(1)
        ratios = block_ratios(decoder, exponents, settings.sparsity, self.epsilon)
        clipped = clip_blocks(np.array(list(ratios.values())), settings.rules)
        by_block = dict(zip(ratios, clipped, strict=True))
        plan = plan_of_blocks(decoder, by_block, settings.sparsity)
        return Allocation(plan, {"exponents": list(exponents.values())})


def block_ratios(
    decoder: DecoderModel, exponents: dict[int, float], sparsity: float, epsilon: float
) -> dict[int, float]:
    """Return block sparsities proportional to 1 − ε … 1 + ε, with weighted mean `sparsity`."""
    alpha = np.array(list(exponents.values()))
    sizes = np.array([sum(lin.numel for lin in decoder.linears[block]) for block in exponents])
    extent = alpha.max() - alpha.min()
    if extent > 0:
        shares = (alpha - alpha.min()) / extent * 2 * epsilon + 1 - epsilon
    else:
        shares = np.ones_like(alpha)
    scale = sizes.sum() * sparsity / (sizes * shares).sum()
    return {block: float(share * scale) for block, share in zip(exponents, shares, strict=True)}


def exponent_of(linear: PrunableLinear) -> float:
    """Return `hill_exponent` of the squared singular values of a linear's weight, in float32."""
    weight = linear.weight.float()
    values = torch.linalg.svdvals(weight).double().square().cpu().numpy()
    rounding = (max(weight.shape) * float(np.finfo(np.float32).eps)) ** 2
    eigenvalues = np.sort(values[values > values.max() * rounding])
    if len(eigenvalues) < 2 or eigenvalues[0] == eigenvalues[-1]:
        raise UserError(
            f"topup=alpha: '{linear.key}' has too few distinct singular values to fit "
            f"({len(eigenvalues)} above zero); leave it dense with model.exclude=[{linear.key}]"
        )
    return hill_exponent(eigenvalues)


def hill_exponent(eigenvalues: NDArray[np.float64]) -> float:
    """Return the exponent α of the power law p(x) ∝ x^−α that best fits the tail of `eigenvalues`.

    For a threshold x_min = λ_i, the n = N − i values λ_j ≥ λ_i give Hill's estimate
    α = 1 + n / Σ_{j ≥ i} ln(λ_j / λ_i). Thresholds lie between log10(0.95·peak), the lower bound in
    the authors' code, and 1.5·peak, with peak the lower edge of the fullest of 100 bins of log10 λ.
    The threshold with the lowest Kolmogorov-Smirnov distance between fit and data is chosen.
    `eigenvalues` (N,) are positive and ascending, with at least two distinct values.
    """
    logs = np.log(eigenvalues)
    counts, edges = np.histogram(np.log10(eigenvalues), bins=BINS)
    peak = 10 ** edges[counts.argmax()]
    thresholds = eigenvalues[:-1]
    inside = (thresholds >= np.log10(0.95 * peak)) & (thresholds <= 1.5 * peak)
    log_sums = logs[::-1].cumsum()[::-1][:-1] - np.arange(len(logs), 1, -1) * logs[:-1]
    fits = log_sums > 0
    candidates = np.flatnonzero(inside & fits)
    if not len(candidates):
        candidates = np.flatnonzero(fits)
    distances = [_distance(logs[start:], float(log_sums[start])) for start in candidates]
    best = candidates[int(np.argmin(distances))]
    return float(1 + (len(logs) - best) / log_sums[best])


def _distance(tail: NDArray[np.float64], log_sum: float) -> float:
    """Return the Kolmogorov-Smirnov distance between ascending ln λ_j ≥ ln λ_i and their fit.

    `log_sum` is Σ (tail − tail[0]).
    """
    n = len(tail)
    fitted = 1 - np.exp(-(n / log_sum) * (tail - tail[0]))
    return float(np.abs(fitted - np.arange(n) / n).max())
