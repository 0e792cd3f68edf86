"""Wins, ties and losses of each competitor against each other, with what chance can do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from neuroal.tables.cases import CASE, Expected, kind_of, kinds_of
from neuroal.tables.labels import KINDS, LOWER_IS_BETTER, label
from neuroal.tables.table import MISSING, Cell, Table, rules_between

RESAMPLES = 10_000
ALIKE = 1e-4
"""Perplexities that differ by less, relatively, tie: what the order of float sums can do."""
FEWEST = 8
"""Pruned models below which a bootstrap says nothing."""
CLUSTER = ("model", "pruner", "sparsity")


@dataclass(frozen=True)
class Duel:
    """One competitor against another over the cases that both answered.

    Attributes:
        kind: ``all``, ``perplexity`` or ``zero_shot``.
        cases: expected; `wins` + `ties` + `losses` + `missing` of them.
        share: (wins + ties / 2) / compared, with a 95 % interval `low` … `high`.
        sign: p of the sign test (two-sided, ties dropped).
        wilcoxon: p of the signed-rank test (two-sided) on log ratios of perplexity or differences
            of accuracy; NaN for ``all``, where the two would have to be mixed.
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


def duels(found: pd.DataFrame, expected: Expected, seed: int = 0) -> list[Duel]:
    """Each competitor against each other, over all cases and by kind.

    Where there are several seeds, a case counts once: the means over the seeds both have.

    Args:
        found: from `cases.relevant`.
        seed: of the bootstrap's generator.
    """
    found = found[~found["task"].isin(expected.beside)]
    values = found.set_index([*CASE, "seed", "competitor"])["value"].unstack("competitor")
    counts = pd.Series([case.task for case in expected.counted]).value_counts()
    kinds = kinds_of(found).reindex(counts.index)
    kinds = kinds.fillna(pd.Series({task: kind_of(task) for task in counts.index}))
    return [
        duel
        for one in expected.competitors
        for other in expected.competitors
        if one != other
        for duel in _kinds(values, kinds, counts, one, other, seed)
    ]


def _kinds(
    values: pd.DataFrame, kinds: pd.Series, counts: pd.Series, one: str, other: str, seed: int
) -> Iterator[Duel]:
    gains = _gains(values, kinds, one, other)
    present = [kind for kind in KINDS if kind in set(kinds)]
    for kind in ["all", *present] if len(present) > 1 else present:
        tasks = kinds.index if kind == "all" else kinds.index[kinds == kind]
        cases = int(counts[tasks].sum())
        yield _duel(gains[gains["task"].isin(tasks)], one, other, kind, cases, seed)


def _gains(values: pd.DataFrame, kinds: pd.Series, one: str, other: str) -> pd.DataFrame:
    """``gain`` of `one` over `other` in each case both answered: above 0 is a win."""
    if one not in values or other not in values:
        return pd.DataFrame(columns=[*CASE, "gain"])
    both = values[[one, other]].dropna()
    pair = both.groupby(level=CASE, sort=True).mean().reset_index()
    lower = np.array([LOWER_IS_BETTER[kinds[task]] for task in pair["task"]], dtype=bool)
    a, b = pair[one].to_numpy(float), pair[other].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(lower, np.log(b) - np.log(a), a - b)
    gain[(a == b) | (lower & (np.abs(gain) < ALIKE))] = 0.0
    return pair[CASE].assign(gain=gain)


def _duel(gains: pd.DataFrame, one: str, other: str, kind: str, cases: int, seed: int) -> Duel:
    gain = gains["gain"].to_numpy(float)
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    points = pd.Series((np.sign(gain) + 1) / 2)
    clusters = gains.groupby(list(CLUSTER)).ngroup()
    low, high = bootstrap(points, clusters, seed)
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
    """95 % percentile interval of the mean of `points`, drawn by whole clusters.

    The cases of one pruned model (its tasks) rise and fall together; drawn one by one they would
    make the interval too narrow. NaN for fewer than `FEWEST` clusters.
    """
    sums = points.groupby(np.array(list(clusters))).agg(["sum", "count"]) if len(points) else None
    if sums is None or len(sums) < FEWEST:
        return math.nan, math.nan
    totals, counts = sums["sum"].to_numpy(float), sums["count"].to_numpy(float)
    drawn = _draws(len(sums), seed)
    low, high = np.quantile((drawn @ totals) / (drawn @ counts), [0.025, 0.975])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(clusters: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn (RESAMPLES, clusters)."""
    shares = np.full(clusters, 1 / clusters)
    drawn = np.random.default_rng(seed).multinomial(clusters, shares, size=RESAMPLES)
    return drawn.astype(float)  # products of floats go through BLAS, of integers they do not


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p = 2·P(X ≥ max(wins, losses)), X binomial with n = wins + losses and ½."""
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(max(wins, losses), total + 1))
    return float(min(1.0, 2 * tail / 2**total))


def signed_rank(gain: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; NaN where nothing differs."""
    from scipy.stats import wilcoxon  # late: it takes most of a second to import

    finite = gain[np.isfinite(gain)]
    return float(wilcoxon(finite).pvalue) if (finite != 0).any() else math.nan


def wins_table(fought: list[Duel]) -> Table:
    """`duels`, as a table."""
    rows = [_row(duel) for duel in fought]
    heads = ("Top-up", "Against", "Of", "Cases", "Wins", "Ties", "Losses", "Missing")
    return Table(
        name="wins",
        title="Wins, ties and losses of each top-up",
        heads=(*heads, "Share won", "95 %", "Sign test p", "Wilcoxon p"),
        labels=3,
        rows=tuple(rows),
        data=pd.DataFrame(fought, columns=list(Duel.__dataclass_fields__)),
        notes=(
            "A case is a model, pruner, sparsity and task; seeds are averaged first. Share won: a "
            f"tie counts half; interval by bootstrap ({RESAMPLES:,} draws of whole pruned models, "
            f"seeded). Perplexities that differ by less than {100 * ALIKE:g} % tie. Tests are "
            "two-sided and not corrected for the number of pairs.",
        ),
        groups=rules_between([tuple(cell.text for cell in row[:2]) for row in rows]),
    )


def _row(duel: Duel) -> tuple[Cell, ...]:
    counts = (duel.cases, duel.wins, duel.ties, duel.losses, duel.missing)
    interval = MISSING if math.isnan(duel.low) else f"{100 * duel.low:.0f} – {100 * duel.high:.0f}"
    share = MISSING if math.isnan(duel.share) else f"{100 * duel.share:.1f} %"
    return (
        Cell(label(duel.one)),
        Cell(label(duel.other)),
        Cell(KINDS.get(duel.kind, duel.kind)),
        *(Cell(str(count), float(count)) for count in counts),
        Cell(share, None if math.isnan(duel.share) else duel.share),
        Cell(interval, None if math.isnan(duel.low) else duel.low),
        *(
            Cell(MISSING) if math.isnan(p) else Cell(f"{p:.2g}" if p >= 1e-4 else "< 0.0001", p)
            for p in (duel.sign, duel.wilcoxon)
        ),
    )
