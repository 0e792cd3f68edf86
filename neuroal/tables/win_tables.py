"""Tables of wins, ties and losses: a matrix, and a list of all pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from neuroal.evaluation.task_table import KINDS
from neuroal.tables.labels import label
from neuroal.tables.table import MISSING, Cell, Table, figure_cell, label_cells, rules_between
from neuroal.tables.wins import RESAMPLES, TOLERANCE, Duel

LEVEL = 0.05
"""Corrected p-value below which a difference is printed in bold."""


def wins_table(comparisons: Sequence[Duel], competitors: Sequence[str]) -> Table:
    """Return a matrix: wins/ties/losses above the diagonal, corrected p-values below it."""
    by_pair = {(duel.one, duel.other, duel.kind): duel for duel in comparisons}
    kinds = list(dict.fromkeys(duel.kind for duel in comparisons))
    rows = [
        (_kind(kind), *label_cells(name), *_line(by_pair, competitors, name, kind))
        for kind in kinds
        for name in competitors
    ]
    return Table(
        name="wins",
        title="Wins, ties and losses of each top-up",
        heads=("Of", "Top-up", *map(label, competitors)),
        labels=2,
        rows=tuple(rows),
        data=_tidy(comparisons),
        notes=(
            "Above the diagonal: wins/ties/losses of the top-up of the row against that of the "
            "column. Below it: two-sided p-value of the sign test without ties, corrected for all "
            f"pairs by Holm's method; bold below {LEVEL:g}. A case is a model, pruner, sparsity "
            "and task, averaged over seeds. Perplexities that differ by less than "
            f"{100 * TOLERANCE:g} % tie.",
        ),
        groups=rules_between(rows, 1),
    )


def _line(
    by_pair: Mapping[tuple[str, str, str], Duel], competitors: Sequence[str], name: str, kind: str
) -> list[Cell]:
    """Return the cells of the top-up `name` in the matrix of one kind."""
    cells = []
    for other in competitors:
        if (name, other, kind) in by_pair:
            duel = by_pair[name, other, kind]
            text = f"{duel.wins}/{duel.ties}/{duel.losses}"
            cells.append(figure_cell(duel.share, text))
        elif (other, name, kind) in by_pair:
            duel = by_pair[other, name, kind]
            cells.append(significance(duel.sign_holm))
        else:
            cells.append(Cell(""))
    return cells


def pairs_table(comparisons: Sequence[Duel]) -> Table:
    """Return a row for each pair and kind, with the share won, its interval and both tests."""
    rows = [_row(duel) for duel in comparisons]
    heads = ("Top-up", "Against", "Of", "Cases", "Wins", "Ties", "Losses", "Missing")
    return Table(
        name="pairs",
        title="Pairs of top-ups",
        heads=(*heads, "Share won", "95 %", "Sign test p", "Wilcoxon p"),
        labels=3,
        rows=tuple(rows),
        data=_tidy(comparisons),
        notes=(
            "Share won counts a tie as half a win; its interval is a bootstrap with "
            f"{RESAMPLES:,} draws of pruned models. Both tests are two-sided and corrected for "
            f"all pairs by Holm's method; bold below {LEVEL:g}.",
        ),
        groups=rules_between(rows, 1),
    )


def _row(duel: Duel) -> tuple[Cell, ...]:
    counts = (duel.cases, duel.wins, duel.ties, duel.losses, duel.missing)
    return (
        *label_cells(duel.one, duel.other),
        _kind(duel.kind),
        *(Cell(str(count), float(count)) for count in counts),
        figure_cell(duel.share, f"{100 * duel.share:.1f} %"),
        figure_cell(duel.low, f"{100 * duel.low:.0f} – {100 * duel.high:.0f}"),
        significance(duel.sign_holm),
        significance(duel.wilcoxon_holm),
    )


def _kind(kind: str) -> Cell:
    return Cell(KINDS[kind].label if kind in KINDS else kind)


def significance(p: float) -> Cell:
    """Return the cell of a corrected p-value, marked as the best if it is significant."""
    if math.isnan(p):
        return Cell(MISSING)
    cell = Cell(f"{p:.2g}" if p >= 1e-4 else "< 0.0001", p)
    return replace(cell, standing=int(p < LEVEL))


def _tidy(comparisons: Sequence[Duel]) -> pd.DataFrame:
    return pd.DataFrame(comparisons, columns=list(Duel.__dataclass_fields__))
