"""Tables: cells with text and standing, and the unrounded figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from neuroal.tables.labels import label

MISSING = "–"
"""Text of a cell without a figure."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: printed text.
        value: sort key; None: the text is the sort key.
        standing: 1: best of its group; 2: second; 0: neither.
        records: identities of the records that the cell is computed from.
    """

    text: str
    value: float | None = None
    standing: int = 0
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table, from which every format is written.

    Attributes:
        name: stem of its file names.
        heads: heads of all columns, label columns first.
        labels: number of label columns.
        data: unrounded figures in tidy form, as in CSV and Parquet.
        groups: numbers of the rows that have a rule above them.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    labels: int
    rows: tuple[tuple[Cell, ...], ...]
    data: pd.DataFrame
    notes: tuple[str, ...] = ()
    groups: frozenset[int] = frozenset()


def number(value: float, kind: str) -> str:
    """Format a figure: accuracy (a share) in percent, perplexity with about four digits."""
    if not math.isfinite(value):
        return "∞" if value == math.inf else "NaN"
    if kind.startswith("lm_eval"):
        return f"{value:.4f}"
    return f"{100 * value:.2f}" if kind == "zero_shot" else plain(value)


def plain(value: float) -> str:
    """Format a number with two decimals below 100, one below 1000 and none above."""
    if not math.isfinite(value):
        return MISSING
    digits = 2 if abs(value) < 99.995 else 1 if abs(value) < 999.95 else 0
    return f"{value:,.{digits}f}" if abs(value) < 1e7 else f"{value:.1e}"


def label_cells(*names: object) -> tuple[Cell, ...]:
    """Return cells with printed names."""
    return tuple(Cell(label(str(name))) for name in names)


def figure_cell(value: float, text: str) -> Cell:
    """Return a cell with `text`, or a dash if `value` is NaN."""
    return Cell(MISSING) if math.isnan(value) else Cell(text, value)


def standings(texts: Sequence[str | None], values: Sequence[float], lower: bool) -> list[int]:
    """Return 1 for the best entries, 2 for the second and 0 for the rest.

    Entries with the same text have the same standing. There is no best among fewer than two
    entries, and missing entries (None or NaN) have standing 0. `lower`: lower is better.
    """
    present = [
        (value if lower else -value, text)
        for value, text in zip(values, texts, strict=True)
        if text is not None and not math.isnan(value)
    ]
    order = list(dict.fromkeys(text for _, text in sorted(present)))
    standing = {text: i for i, text in enumerate(order[:2], 1)} if len(present) > 1 else {}
    return [
        0 if text is None or math.isnan(value) else standing.get(text, 0)
        for value, text in zip(values, texts, strict=True)
    ]


def rules_between(rows: Sequence[Sequence[Cell]], columns: int) -> frozenset[int]:
    """Return the numbers of the rows at which the text of the first `columns` changes."""
    texts = [[cell.text for cell in row[:columns]] for row in rows]
    return frozenset(i for i in range(1, len(rows)) if texts[i] != texts[i - 1])
