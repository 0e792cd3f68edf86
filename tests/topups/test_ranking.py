"""Which candidates an adaptive search takes for possible winners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from neuroal.topups.ranking import LEAST_SLACK, around_best, finalists

LAMBDAS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25]


def ranked(values: Sequence[float]) -> Mapping[int, float]:
    return around_best(len(values), lambda wanted: [values[i] for i in wanted])


def curves(random: np.random.Generator, jitter: float) -> tuple[list[float], list[float]]:
    """A criterion and its ranks: the same smooth curve, each with a jitter of its own."""
    smooth = 1 + 8 * (np.array(LAMBDAS) - random.uniform(0.02, 0.2)) ** 2
    both = smooth * (1 + jitter * random.standard_normal((2, len(LAMBDAS))))
    return list(both[0]), list(both[1])


def found_and_measured(jitter: float, trials: int = 300) -> tuple[float, float]:
    """Share of the trials in which the best is a finalist, and the mean number of finalists."""
    random = np.random.default_rng(0)
    hits, counts = [], []
    for _ in range(trials):
        criterion, ranks = curves(random, jitter)
        found = finalists(LAMBDAS, ranked(ranks))
        hits.append(int(np.argmin(criterion)) in found)
        counts.append(len(found))
    return float(np.mean(hits)), float(np.mean(counts))


def test_the_best_is_a_finalist_however_much_the_criterion_jumps() -> None:
    smooth, jumping = found_and_measured(0.001), found_and_measured(0.008)
    assert min(smooth[0], jumping[0]) >= 0.95
    assert smooth[1] < jumping[1] < len(LAMBDAS)
    assert smooth[1] <= 5


def test_about_half_of_the_candidates_are_ranked() -> None:
    _, ranks = curves(np.random.default_rng(1), 0.0)
    found = ranked(ranks)
    best = int(np.argmin(ranks))
    assert len(found) <= 8
    assert best in found
    assert {i for i in (best - 1, best + 1) if 0 <= i < len(LAMBDAS)} <= found.keys()


def test_on_a_smooth_curve_those_within_the_least_slack_are_finalists() -> None:
    _, ranks = curves(np.random.default_rng(1), 0.0)
    near = [i for i in np.argsort(ranks) if ranks[i] <= (1 + LEAST_SLACK) * min(ranks)]
    assert finalists(LAMBDAS, ranked(ranks)) == near


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [np.inf] * 6, [0.0] * 6])
def test_where_ranks_say_nothing_all_are_finalists(values: list[float]) -> None:
    found = finalists(LAMBDAS[: len(values)], ranked(values))
    assert sorted(found) == list(range(len(values)))
