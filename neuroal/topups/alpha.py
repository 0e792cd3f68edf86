"""AlphaPruning: blocks whose spectra have lighter tails are pruned more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.schedule import clip_blocks, plan_of_blocks

BINS = 100


@dataclass(frozen=True)
class AlphaPruning(TopUp):
    """Block sparsity from the exponents of power laws fitted to the weights' spectra.

    α of a linear is the exponent of its squared singular values (`hill_exponent`), α_b the mean
    over the linears of block b. Ratios are linear in α_b from 1 − ε to 1 + ε, then rescaled so
    that their mean, weighted by the numbers of parameters, is s. Needs no calibration.

    Source: Lu et al., 2024 (arXiv 2410.10912), section 3, mapped block-wise as in its experiments.

    Args:
        epsilon: ε. The authors tune it with model, pruner and sparsity and publish it for 70 % on
            LLaMA-7B: 0.3 under magnitude, 0.2 under Wanda and SparseGPT (Llama-2-7B: 0.3).

    Sample YAML::

        _target_: neuroal.topups.alpha.AlphaPruning
        epsilon: 0.3
    """

    epsilon: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise UserError(f"topup.epsilon={self.epsilon}: must be at least 0 and below 1")

    def allocate(self, context: AllocationContext) -> Allocation:
        subject = context.subject
        exponents: dict[int, float] = {}
        with context.progress.stage("fit spectra", len(subject), "block") as step:
            for index, linears in subject.walk():
                if linears:
                    exponents[index] = float(np.mean([exponent_of(linear) for linear in linears]))
                step.advance(1)
        ratios = block_ratios(subject, exponents, context.sparsity, self.epsilon)
        clipped = clip_blocks(np.array(list(ratios.values())), context.rules)
        plan = plan_of_blocks(subject, dict(zip(ratios, clipped, strict=True)), context.sparsity)
        return Allocation(plan, {"exponents": list(exponents.values())})


def block_ratios(
    subject: DecoderModel, exponents: dict[int, float], sparsity: float, epsilon: float
) -> dict[int, float]:
    """Sparsities in proportion to 1 − ε … 1 + ε, with parameter-weighted mean `sparsity`."""
    alpha = np.array(list(exponents.values()))
    sizes = np.array([sum(lin.numel for lin in subject.linears[block]) for block in exponents])
    span = alpha.max() - alpha.min()
    shares = (alpha - alpha.min()) / span * 2 * epsilon + 1 - epsilon if span > 0 else alpha**0
    scale = sizes.sum() * sparsity / (sizes * shares).sum()
    return {block: float(share * scale) for block, share in zip(exponents, shares, strict=True)}


def exponent_of(linear: PrunableLinear) -> float:
    """`hill_exponent` of the squared singular values of a linear's weight (in float32).

    Raises:
        UserError: the weight has fewer than two different singular values above zero.
    """
    weight = linear.module.weight.data.float()
    values = torch.linalg.svdvals(weight).double().square().cpu().numpy()
    rounding = (max(weight.shape) * float(np.finfo(np.float32).eps)) ** 2
    eigenvalues = np.sort(values[values > values.max() * rounding])
    if len(eigenvalues) < 2 or eigenvalues[0] == eigenvalues[-1]:
        raise UserError(
            f"topup=alpha: '{linear.key}' has no spectrum to fit (rank {len(eigenvalues)}); "
            f"leave it dense with model.exclude=[{linear.key}]"
        )
    return hill_exponent(eigenvalues)


def hill_exponent(eigenvalues: NDArray[np.float64]) -> float:
    """Exponent α of the power law p(x) ∝ x^−α that fits the tail of `eigenvalues` best.

    For a threshold x_min = λ_i the n = N − i values from it on give Hill's estimate
    α = 1 + n / Σ_{j ≥ i} ln(λ_j / λ_i). Of the thresholds from log10(0.95·peak) (the authors' own
    lower end) to 1.5·peak, where peak is the lower edge of the fullest of 100 bins of log10 λ, the
    one wins whose fitted distribution is nearest to the empirical one (Kolmogorov-Smirnov).

    Args:
        eigenvalues: ascending, positive, at least two different ones: (N,).
    """
    logs = np.log(eigenvalues)
    counts, edges = np.histogram(np.log10(eigenvalues), bins=BINS)
    peak = 10 ** edges[counts.argmax()]
    thresholds = eigenvalues[:-1]
    inside = (thresholds >= np.log10(0.95 * peak)) & (thresholds <= 1.5 * peak)
    spread = logs[::-1].cumsum()[::-1][:-1] - np.arange(len(logs), 1, -1) * logs[:-1]
    fits = spread > 0
    candidates = np.flatnonzero(inside & fits)
    if not len(candidates):
        candidates = np.flatnonzero(fits)
    distances = [_distance(logs[start:], float(spread[start])) for start in candidates]
    best = candidates[int(np.argmin(distances))]
    return float(1 + (len(logs) - best) / spread[best])


def _distance(tail: NDArray[np.float64], spread: float) -> float:
    """Kolmogorov-Smirnov distance between a tail (log values) and the power law fitted to it."""
    n = len(tail)
    fitted = 1 - np.exp(-(n / spread) * (tail - tail[0]))
    return float(np.abs(fitted - np.arange(n) / n).max())
