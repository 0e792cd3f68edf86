"""Adaptive search: estimate criteria on shortened windows to skip unlikely candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

STRIDE = 4
"""Distance between the candidates that are estimated first."""
FITTED = 8
"""Number of estimated candidates, closest to the best, that the parabola is fitted to."""
TOLERANCE = 4.0
"""Tolerance, in standard deviations, between a candidate's criterion and its predicted value."""
LEAST_TOLERANCE = 0.005
"""Lower bound of the tolerance, as a share of the criterion."""


def estimate_around_best(
    count: int, estimate: Callable[[Sequence[int]], Iterable[float]]
) -> dict[int, float]:
    """Return estimates for a part of `count` candidates, by index.

    Estimate every `STRIDE`-th candidate, then the neighbours of the best one at half the distance,
    until the distance is 1.
    """
    estimates: dict[int, float] = {}
    indices, stride = list(range(0, count, STRIDE)), STRIDE
    while True:
        estimates |= zip(indices, estimate(indices), strict=True)
        if stride == 1:
            return estimates
        stride //= 2
        best = _best(estimates)
        neighbours = (best - stride, best + stride)
        indices = [i for i in neighbours if 0 <= i < count and i not in estimates]


def finalists(candidates: Sequence[float], estimates: Mapping[int, float]) -> list[int]:
    """Return the indices of the candidates that may have the lowest criterion, likeliest first.

    Over λ, the criterion is a smooth curve with one minimum plus noise, of a percent or two on
    small models and a tenth of that on large ones. The noise on shortened windows is different. The
    predicted criterion of a candidate is the mean of a parabola, fitted to the estimates around the
    lowest one, and of the linear interpolation of the estimates. The residuals of the n fitted
    estimates give the noise σ² = Σ residual² / (n − 3), relative to the lowest estimate. Finalists
    are all candidates predicted within ``max(TOLERANCE·σ, LEAST_TOLERANCE)`` of the lowest.

    With fewer than four estimates, or estimates that are not finite and positive, all candidates
    are finalists.

    Args:
        candidates: values of λ.
        estimates: estimated criteria of a part of the candidates, by index.
    """
    best = _best(estimates)
    usable = bool(np.isfinite(list(estimates.values())).all()) and estimates[best] > 0
    if len(estimates) < 4 or not usable:
        return [best, *(index for index in range(len(candidates)) if index != best)]
    criteria, noise = _predict(candidates, estimates, best)
    order = sorted(range(len(candidates)), key=lambda index: (criteria[index], index))
    limit = criteria[order[0]] + max(TOLERANCE * noise, LEAST_TOLERANCE)
    return [index for index in order if criteria[index] <= limit]


def _predict(
    candidates: Sequence[float], estimates: Mapping[int, float], best: int
) -> tuple[NDArray[np.float64], float]:
    """Return each candidate's predicted excess over the lowest estimate, relative to it, and σ."""
    lambdas = np.asarray(candidates, np.float64)
    estimated = sorted(estimates, key=lambda index: candidates[index])
    positions = lambdas[estimated]
    excess = np.array([estimates[index] for index in estimated]) / estimates[best] - 1
    by_distance = sorted(
        estimates, key=lambda index: (abs(candidates[index] - candidates[best]), index)
    )
    fitted = np.isin(estimated, by_distance[:FITTED])
    parabola = np.polynomial.Polynomial.fit(positions[fitted], excess[fitted], 2)
    residuals = excess[fitted] - parabola(positions[fitted])
    noise = np.sqrt(np.sum(residuals**2) / (np.count_nonzero(fitted) - 3))
    criteria = np.interp(lambdas, positions, excess)
    inside = (lambdas >= positions[fitted].min()) & (lambdas <= positions[fitted].max())
    criteria[inside] = (criteria[inside] + parabola(lambdas[inside])) / 2
    return criteria, float(noise)


def _best(estimates: Mapping[int, float]) -> int:
    """Return the index of the lowest estimate, the first on ties."""
    return min(estimates, key=lambda index: (estimates[index], index))
