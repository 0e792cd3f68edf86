"""The candidates that an adaptive search considers possible winners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from neuroal.search.prefilter import (
    LEAST_TOLERANCE,
    _predict,
    estimate_around_best,
    finalists,
)

LAMBDAS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25]


def estimates_of(values: Sequence[float]) -> Mapping[int, float]:
    return estimate_around_best(len(values), lambda indices: [values[i] for i in indices])


def curves(random: np.random.Generator, noise: float) -> tuple[list[float], list[float]]:
    """Return a criterion and its estimates: one smooth curve with independent noise."""
    smooth = 1 + 8 * (np.array(LAMBDAS) - random.uniform(0.02, 0.2)) ** 2
    both = smooth * (1 + noise * random.standard_normal((2, len(LAMBDAS))))
    return list(both[0]), list(both[1])


def hits_and_finalists(noise: float, trials: int = 300) -> tuple[float, float]:
    """Return how often the best candidate is a finalist, and the mean number of finalists."""
    random = np.random.default_rng(0)
    hits, counts = [], []
    for _ in range(trials):
        criterion, estimates = curves(random, noise)
        possible = finalists(LAMBDAS, estimates_of(estimates))
        hits.append(int(np.argmin(criterion)) in possible)
        counts.append(len(possible))
    return float(np.mean(hits)), float(np.mean(counts))


def test_the_best_candidate_is_a_finalist_at_any_noise() -> None:
    smooth, noisy = hits_and_finalists(0.001), hits_and_finalists(0.008)
    assert min(smooth[0], noisy[0]) >= 0.95
    assert smooth[1] < noisy[1] < len(LAMBDAS)
    assert smooth[1] <= 5


def test_about_half_of_the_candidates_are_estimated() -> None:
    _, curve = curves(np.random.default_rng(1), 0.0)
    estimates = estimates_of(curve)
    best = int(np.argmin(curve))
    assert len(estimates) <= 8
    assert best in estimates
    assert {i for i in (best - 1, best + 1) if 0 <= i < len(LAMBDAS)} <= estimates.keys()


def test_on_a_smooth_curve_the_finalists_are_within_the_least_tolerance() -> None:
    _, curve = curves(np.random.default_rng(1), 0.0)
    near = [i for i in np.argsort(curve) if curve[i] <= (1 + LEAST_TOLERANCE) * min(curve)]
    assert finalists(LAMBDAS, estimates_of(curve)) == near


@pytest.mark.parametrize(
    "values",
    [[3.0, 1.0, 2.0], [np.inf] * 6, [1.0, 1.1, 1.2, 1.3, np.inf, 1.4], [0.0] * 6],
)
def test_all_candidates_are_finalists_if_estimates_are_uninformative(values: list[float]) -> None:
    possible = finalists(LAMBDAS[: len(values)], estimates_of(values))
    assert sorted(possible) == list(range(len(values)))


@pytest.mark.parametrize("lowest", [0.03, 0.09])
def test_a_parabola_predicts_the_candidates_between_its_points_and_the_noise(
    lowest: float,
) -> None:
    """The mean of parabola and interpolation inside, and interpolation outside of the points."""
    candidates = [*(0.01 * step for step in range(1, 11)), 0.2]
    values = [1.0 + (x - lowest) ** 2 + 0.001 * (-1) ** n for n, x in enumerate(candidates)]
    estimates = {index: values[index] for index in (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)}
    best = min(estimates, key=lambda index: estimates[index])
    criteria, noise = _predict(candidates, estimates, best)
    near = sorted(estimates, key=lambda index: abs(candidates[index] - candidates[best]))[:8]
    x, y = np.array([[candidates[i], values[i] / values[best] - 1] for i in sorted(near)]).T
    parabola = np.polynomial.Polynomial.fit(x, y, 2)
    assert noise == pytest.approx(np.sqrt(np.sum((y - parabola(x)) ** 2) / (8 - 3)))
    excess = [estimates[index] / values[best] - 1 for index in estimates]
    expected = np.interp(candidates, [candidates[index] for index in estimates], excess)
    for index, candidate in enumerate(candidates):
        if x.min() <= candidate <= x.max():
            expected[index] = (expected[index] + parabola(candidate)) / 2
    assert criteria == pytest.approx(expected, abs=1e-12)


def test_four_estimates_are_enough() -> None:
    values = [1.0, 4.0, 9.0, 16.0]
    assert finalists([0.1, 0.2, 0.3, 0.4], dict(enumerate(values))) == [0]
