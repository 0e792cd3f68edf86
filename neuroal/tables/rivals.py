"""NeuroAL against every other top-up: wins, by how much, and where it loses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from neuroal.tables.cases import CASE, Expected, kinds_of
from neuroal.tables.chance import at_chance
from neuroal.tables.labels import label
from neuroal.tables.table import MISSING, Cell, Table, label_cells
from neuroal.tables.win_tables import significance
from neuroal.tables.wins import CLUSTER, Duel, bootstrap, by_competitor, gains_over

NEUROAL = "neuroal"
CASES = "A case is a model, pruner, sparsity and task."
FACTORS = "Factor: perplexity with NeuroAL divided by that of the other; geometric mean over cases."


def without_chance(results: pd.DataFrame) -> pd.DataFrame:
    """Return the results on models and tasks of which the dense model is better than guessing."""
    guessing = at_chance(results)
    pairs = zip(results["model"], results["task"], strict=True)
    return results[[pair not in guessing for pair in pairs]].reset_index(drop=True)


def gains_over_rivals(results: pd.DataFrame, rivals: Sequence[str]) -> pd.DataFrame:
    """Return NeuroAL's gain over each rival in each case that both answered.

    Columns are those of `wins.gains_over`, with ``rival`` and ``kind``.
    """
    values, kinds = by_competitor(results), kinds_of(results)
    parts = [gains_over(values, kinds, NEUROAL, name).assign(rival=name) for name in rivals]
    gains = pd.concat(parts, ignore_index=True)
    return gains.assign(kind=gains["task"].map(kinds))


def factor(gain: pd.Series) -> float:
    """Return the geometric mean of perplexity ÷ perplexity of the rival."""
    return float(np.exp(-gain.mean())) if len(gain) else math.nan


def factor_text(value: float) -> str:
    return MISSING if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3f}"


def rivals_table(gains: pd.DataFrame, comparisons: Sequence[Duel], kind: str) -> Table:
    """Return a row for each rival: wins, ties, losses, their test, and the size of the gain.

    The size is a factor of perplexities or a difference of accuracies, with the 95 % interval of
    its mean by a bootstrap of pruned models and the interquartile range of the cases.
    """
    own = [duel for duel in comparisons if duel.kind == kind]
    tests = {(d.one if d.other == NEUROAL else d.other): d.sign_holm for d in own if _is_neuroal(d)}
    part = gains[gains["kind"] == kind]
    rows, is_text = [], kind == "perplexity"
    for rival, of_rival in part.groupby("rival", sort=False):
        gain = of_rival["gain"]
        counts = (len(gain), (gain > 0).sum(), (gain == 0).sum(), (gain < 0).sum())
        low, high = bootstrap(gain, of_rival.groupby(list(CLUSTER)).ngroup(), seed=0)
        lower, upper = (float(gain.quantile(share)) for share in (0.25, 0.75))
        rows.append(
            (
                *label_cells(str(rival)),
                *(Cell(str(count), float(count)) for count in counts),
                significance(tests.get(str(rival), math.nan)),
                Cell(_size(float(gain.mean()), is_text), float(gain.mean())),
                Cell(_range(low, high, is_text)),
                Cell(_range(lower, upper, is_text)),
            )
        )
    heads = ("Against", "Cases", "Wins", "Ties", "Losses", "Sign test p")
    size = "Factor" if is_text else "Points"
    return Table(
        name=f"rivals-{kind}",
        title="NeuroAL against every other top-up",
        heads=(*heads, size, "95 %", "Interquartile range"),
        labels=1,
        rows=tuple(rows),
        data=part,
    )


def _is_neuroal(duel: Duel) -> bool:
    return NEUROAL in (duel.one, duel.other)


def _size(gain: float, is_text: bool) -> str:
    return factor_text(math.exp(-gain)) if is_text else f"{100 * gain:+.2f}"


def _range(low: float, high: float, is_text: bool) -> str:
    if math.isnan(low) or math.isnan(high):
        return MISSING
    ends = (high, low) if is_text else (low, high)
    return " to ".join(_size(end, is_text) for end in ends)


def split_table(gains: pd.DataFrame, by: str, values: Sequence[str]) -> Table:
    """Return wins and factor for each rival (rows) and value of `by` (columns)."""
    rows = []
    for rival, of_rival in gains.groupby("rival", sort=False):
        parts = [of_rival[of_rival[by] == value]["gain"] for value in values]
        rows.append((*label_cells(str(rival)), *map(split_cell, parts)))
    return Table(
        name=f"rivals-by-{by}",
        title=f"NeuroAL against every other top-up, by {by}",
        heads=("Against", *(label(str(value)) for value in values)),
        labels=1,
        rows=tuple(rows),
        data=gains,
    )


def split_cell(gain: pd.Series) -> Cell:
    """Return ``12 of 12 · 0.713``: cases won, and the factor of perplexities."""
    if gain.empty:
        return Cell(MISSING)
    wins = int((gain > 0).sum())
    return Cell(f"{wins} of {len(gain)} · {factor_text(factor(gain))}", wins / len(gain))


def losses_table(gains: pd.DataFrame, expected: Expected) -> Table:
    """Return where NeuroAL has the higher perplexity, and its worst case."""
    rows = []
    for rival, of_rival in gains.groupby("rival", sort=False):
        lost = of_rival[of_rival["gain"] < 0].sort_values(["gain", *CASE])
        columns = [_shares(of_rival, lost, by, expected.axis(by)) for by in ("pruner", "sparsity")]
        worst = MISSING
        if len(lost):
            first = lost.iloc[0]
            case = ", ".join(label(str(first[name])) for name in CASE)
            worst = f"{case}: × {factor_text(math.exp(-first['gain']))}"
        counts = f"{len(lost)} of {len(of_rival)}"
        rows.append((*label_cells(str(rival)), Cell(counts), *map(Cell, columns), Cell(worst)))
    return Table(
        name="losses",
        title="Cases in which NeuroAL has the higher perplexity",
        heads=("Against", "Lost", "By pruner", "By sparsity", "Worst"),
        labels=1,
        rows=tuple(rows),
        data=gains,
    )


def _shares(part: pd.DataFrame, lost: pd.DataFrame, by: str, values: Sequence[str]) -> str:
    """Return ``Wanda 3 of 36, …`` for the values of `by` with losses."""
    counts = [(value, (lost[by] == value).sum(), (part[by] == value).sum()) for value in values]
    texts = [f"{label(value)} {count} of {total}" for value, count, total in counts if count]
    return ", ".join(texts) or MISSING
