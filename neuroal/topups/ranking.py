"""Adaptive search: which candidates are worth measuring, by their criteria on shortened windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

STRIDE = 4
"""Every so many candidates are ranked, and then those between about the best of them."""
FITTED = 8
"""Ranked candidates, nearest to the best, through which the parabola goes."""
SPREADS = 4.0
"""Standard deviations by which the criterion may differ from what its rank lets expect."""
LEAST_SLACK = 0.005
"""The same, as a share of the criterion: at least this."""


def around_best(count: int, rank: Callable[[Sequence[int]], Iterable[float]]) -> dict[int, float]:
    """Every `STRIDE`-th of `count` candidates, then neighbours of the best, nearer and nearer."""
    found: dict[int, float] = {}
    wanted, stride = list(range(0, count, STRIDE)), STRIDE
    while True:
        found |= zip(wanted, rank(wanted), strict=True)
        if stride == 1:
            return found
        stride //= 2
        best = min(found, key=lambda index: (found[index], index))
        around = (best - stride, best + stride)
        wanted = [index for index in around if 0 <= index < count and index not in found]


def finalists(candidates: Sequence[float], ranks: Mapping[int, float]) -> list[int]:
    """Who may be the best of `candidates`, likeliest first, given the `ranks` of some of them.

    Over λ the criterion is a smooth curve with one minimum, and a jitter of a percent or two on
    small models, of a tenth of that on large ones; on shortened windows it jitters elsewhere. So
    the expected criterion is the mean of what a parabola says, fitted to the ranks around the
    lowest, and of the ranks themselves, linear between neighbours. The residuals of the fit tell
    the jitter: σ² = Σ residual² / (ranks − 3), as a share of the lowest rank. All candidates are
    finalists that are expected within ``max(SPREADS·σ, LEAST_SLACK)`` of the lowest. With too few
    ranks to tell the jitter, all candidates are.
    """
    best = min(ranks, key=lambda index: (ranks[index], index))
    near = sorted(ranks, key=lambda index: (abs(candidates[index] - candidates[best]), index))
    if len(near) < 4 or not np.isfinite(list(ranks.values())).all() or ranks[best] <= 0:
        rest = sorted(set(range(len(candidates))) - {best})
        return [best, *rest]
    spread = np.asarray(candidates, np.float64)
    known = sorted(ranks, key=lambda index: candidates[index])
    places, excess = spread[known], np.array([ranks[i] for i in known]) / ranks[best] - 1
    expected = np.interp(spread, places, excess)
    fitted = np.isin(known, near[:FITTED])
    parabola = np.polynomial.Polynomial.fit(places[fitted], excess[fitted], 2)
    residuals = excess[fitted] - parabola(places[fitted])
    jitter = np.sqrt(np.sum(residuals**2) / (np.count_nonzero(fitted) - 3))
    inside = (spread >= places[fitted].min()) & (spread <= places[fitted].max())
    expected[inside] = (expected[inside] + parabola(spread[inside])) / 2
    slack = max(SPREADS * float(jitter), LEAST_SLACK)
    order = sorted(range(len(candidates)), key=lambda index: (expected[index], index))
    limit = expected[order[0]] + slack
    return [index for index in order if expected[index] <= limit]
