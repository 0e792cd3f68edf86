"""Pairwise wins, ties and losses of competitors, with corrected significance tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd

from neuroal.evaluation.task_table import KINDS
from neuroal.tables.cases import CASE, Expected, kinds_of

RESAMPLES = 10_000
"""Draws of the bootstrap."""
TOLERANCE = 1e-4
"""Relative difference of perplexities below which they tie (effect of the summation order)."""
MIN_CLUSTERS = 8
"""Minimum number of pruned models for a bootstrap interval."""
CLUSTER = ("model", "pruner", "sparsity")
"""Columns that identify a pruned model."""


@dataclass(frozen=True)
class Duel:
    """Comparison of two competitors over the cases that both answered.

    Attributes:
        one: the competitor whose wins are counted.
        kind: kind of the tasks: ``all``, ``perplexity`` or ``zero_shot``.
        cases: expected cases, equal to `wins` + `ties` + `losses` + `missing`.
        missing: cases that one of the two did not answer.
        share: (wins + ties / 2) / (wins + ties + losses).
        low: lower end of the 95 % interval of `share`; `high` is the upper end.
        sign: p-value of the two-sided sign test, without ties.
        wilcoxon: p-value of the two-sided signed-rank test on log ratios of perplexity or
            differences of accuracy; NaN for ``all``, which would mix the two.
        sign_holm: `sign`, corrected by `holm` for the pairs of the same kind.
        wilcoxon_holm: `wilcoxon`, corrected in the same way.
    """

    one: str
    other: str
    kind: str
    cases: int
    wins: int
    ties: int
    losses: int
    missing: int
    share: float
    low: float
    high: float
    sign: float
    wilcoxon: float
    sign_holm: float = math.nan
    wilcoxon_holm: float = math.nan


def duels(results: pd.DataFrame, expected: Expected) -> list[Duel]:
    """Compare each pair of competitors once, over all cases and by kind.

    A case counts once. With several seeds, compares the means over the seeds that both have.
    """
    results = results[~results["task"].isin(expected.beside)]
    values = by_competitor(results)
    counts = pd.Series([case.task for case in expected.counted]).value_counts()
    kinds = kinds_of(results, counts.index).reindex(counts.index)
    return _corrected(
        [
            duel
            for one, other in combinations(expected.competitors, 2)
            for duel in _duels_by_kind(values, kinds, counts, one, other)
        ]
    )


def _corrected(comparisons: Sequence[Duel]) -> list[Duel]:
    """Return `comparisons` with p-values corrected over the pairs of the same kind."""
    corrected = dict(enumerate(comparisons))
    for kind in {duel.kind for duel in comparisons}:
        places = [place for place, duel in corrected.items() if duel.kind == kind]
        signs = holm([corrected[place].sign for place in places])
        ranks = holm([corrected[place].wilcoxon for place in places])
        for place, sign, rank in zip(places, signs, ranks, strict=True):
            corrected[place] = replace(corrected[place], sign_holm=sign, wilcoxon_holm=rank)
    return list(corrected.values())


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values after the step-down correction of Holm (1979); NaN is not a test.

    The i-th smallest of m values is multiplied by m − i + 1, is at least the one before, and is at
    most 1. The probability of any false rejection is then at most the level of the test.
    """
    order = sorted((value, i) for i, value in enumerate(values) if not math.isnan(value))
    corrected, least = [math.nan] * len(values), 0.0
    for tests_left, (value, i) in zip(range(len(order), 0, -1), order, strict=True):
        least = max(least, min(1.0, tests_left * value))
        corrected[i] = least
    return corrected


def by_competitor(results: pd.DataFrame) -> pd.DataFrame:
    """Return the values of results: a row for each case and seed, a column for each competitor."""
    return results.set_index([*CASE, "seed", "competitor"])["value"].unstack("competitor")


def _duels_by_kind(
    values: pd.DataFrame, kinds: pd.Series, counts: pd.Series, one: str, other: str
) -> Iterator[Duel]:
    gains = gains_over(values, kinds, one, other)
    present = [kind for kind in KINDS if kind in set(kinds)]
    for kind in ["all", *present] if len(present) > 1 else present:
        tasks = kinds.index if kind == "all" else kinds.index[kinds == kind]
        cases = int(counts[tasks].sum())
        yield _duel(gains[gains["task"].isin(tasks)], one, other, kind, cases)


def gains_over(values: pd.DataFrame, kinds: pd.Series, one: str, other: str) -> pd.DataFrame:
    """Return the ``gain`` of `one` over `other` in each case that both answered.

    The gain is the log ratio of perplexities (0 for ties, see `TOLERANCE`) or the difference of
    accuracies. A positive gain is a win. `values` are from `by_competitor`, `kinds` by task.
    """
    if one not in values or other not in values:
        return pd.DataFrame(columns=[*CASE, "gain"])
    both = values[list(dict.fromkeys((one, other)))].dropna()
    pair = both.groupby(level=CASE, sort=True).mean().reset_index()
    lower = np.array([KINDS[kinds[task]].lower_is_better for task in pair["task"]], dtype=bool)
    a, b = pair[one].to_numpy(float), pair[other].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(lower, np.log(b) - np.log(a), a - b)
    gain[(a == b) | (lower & (np.abs(gain) < TOLERANCE))] = 0.0
    return pair[CASE].assign(gain=gain)


def _duel(gains: pd.DataFrame, one: str, other: str, kind: str, cases: int) -> Duel:
    gain = gains["gain"].to_numpy(float)
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    points = pd.Series((np.sign(gain) + 1) / 2)
    clusters = gains.groupby(list(CLUSTER)).ngroup()
    low, high = bootstrap(points, clusters, seed=0)
    return Duel(
        one=one,
        other=other,
        kind=kind,
        cases=cases,
        wins=wins,
        ties=len(gain) - wins - losses,
        losses=losses,
        missing=cases - len(gain),
        share=float(points.mean()) if len(gain) else math.nan,
        low=low,
        high=high,
        sign=sign_test(wins, losses),
        wilcoxon=math.nan if kind == "all" else signed_rank(gain),
    )


def bootstrap(points: pd.Series, clusters: Iterable[int], seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `points`, by a cluster bootstrap.

    The tasks of one pruned model are correlated, so drawing single cases would make the interval
    too narrow. Both ends are NaN for fewer than `MIN_CLUSTERS` clusters. `points` are 1 for a win,
    ½ for a tie and 0 for a loss.
    """
    sums = points.groupby(np.array(list(clusters))).agg(["sum", "count"]) if len(points) else None
    if sums is None or len(sums) < MIN_CLUSTERS:
        return math.nan, math.nan
    totals, counts = sums["sum"].to_numpy(float), sums["count"].to_numpy(float)
    drawn = _draws(len(sums), seed)
    low, high = np.quantile((drawn @ totals) / (drawn @ counts), [0.025, 0.975])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(clusters: int, seed: int) -> np.ndarray:
    """Return how often each cluster is drawn: (RESAMPLES, clusters)."""
    shares = np.full(clusters, 1 / clusters)
    drawn = np.random.default_rng(seed).multinomial(clusters, shares, size=RESAMPLES)
    return drawn.astype(float)  # BLAS multiplies floats, not integers


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p = 2·P(X ≥ max(wins, losses)), X ~ Binomial(wins + losses, ½)."""
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(max(wins, losses), total + 1))
    return float(min(1.0, 2 * tail / 2**total))


def signed_rank(gain: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; NaN if there is no difference."""
    from scipy.stats import wilcoxon  # slow to import

    finite = gain[np.isfinite(gain)]
    return float(wilcoxon(finite).pvalue) if (finite != 0).any() else math.nan
