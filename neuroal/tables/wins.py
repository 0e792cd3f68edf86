"""Pairwise wins, ties and losses of competitors, with significance tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from neuroal.evaluation.task_table import KINDS
from neuroal.tables.cases import CASE, Expected, kinds_of
from neuroal.tables.table import Cell, Table, figure_cell, label_cells, rules_between

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


def duels(results: pd.DataFrame, expected: Expected) -> list[Duel]:
    """Compare each ordered pair of competitors, over all cases and by kind.

    A case counts once. With several seeds, compares the means over the seeds that both have.
    """
    results = results[~results["task"].isin(expected.beside)]
    values = by_competitor(results)
    counts = pd.Series([case.task for case in expected.counted]).value_counts()
    kinds = kinds_of(results, counts.index).reindex(counts.index)
    return [
        duel
        for one in expected.competitors
        for other in expected.competitors
        if one != other
        for duel in _duels_by_kind(values, kinds, counts, one, other)
    ]


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


def wins_table(comparisons: list[Duel]) -> Table:
    """Return the results of `duels` as a table."""
    rows = [_row(duel) for duel in comparisons]
    heads = ("Top-up", "Against", "Of", "Cases", "Wins", "Ties", "Losses", "Missing")
    return Table(
        name="wins",
        title="Wins, ties and losses of each top-up",
        heads=(*heads, "Share won", "95 %", "Sign test p", "Wilcoxon p"),
        labels=3,
        rows=tuple(rows),
        data=pd.DataFrame(comparisons, columns=list(Duel.__dataclass_fields__)),
        notes=(
            "A case is a model, pruner, sparsity and task, averaged over seeds. Share won counts a "
            f"tie as half a win; its interval is a bootstrap with {RESAMPLES:,} draws of pruned "
            f"models. Perplexities that differ by less than {100 * TOLERANCE:g} % tie. The tests "
            "are two-sided and not corrected for multiple comparisons.",
        ),
        groups=rules_between(rows, 1),
    )


def _row(duel: Duel) -> tuple[Cell, ...]:
    counts = (duel.cases, duel.wins, duel.ties, duel.losses, duel.missing)
    return (
        *label_cells(duel.one, duel.other),
        Cell(KINDS[duel.kind].label if duel.kind in KINDS else duel.kind),
        *(Cell(str(count), float(count)) for count in counts),
        figure_cell(duel.share, f"{100 * duel.share:.1f} %"),
        figure_cell(duel.low, f"{100 * duel.low:.0f} – {100 * duel.high:.0f}"),
        *(
            figure_cell(p, f"{p:.2g}" if p >= 1e-4 else "< 0.0001")
            for p in (duel.sign, duel.wilcoxon)
        ),
    )
