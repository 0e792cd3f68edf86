"""A table: cells with text and rank on one side, the figures themselves on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: as printed.
        value: what it sorts by; None sorts by the text.
        rank: 1 the best of its group (bold), 2 the second (underlined), 0 neither.
        records: identities of the records behind it.
    """

    text: str
    value: float | None = None
    rank: int = 0
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """What every format is written from.

    Attributes:
        name: stem of its files.
        title: one line.
        heads: of all columns, the labels' first.
        labels: how many columns are labels.
        rows: one cell for each head.
        data: the figures, tidy, unrounded: what CSV and Parquet hold.
        notes: what a reader must know.
        groups: row numbers at which a rule goes, the first row aside.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    labels: int
    rows: tuple[tuple[Cell, ...], ...]
    data: pd.DataFrame
    notes: tuple[str, ...] = ()
    groups: frozenset[int] = field(default_factory=frozenset)


def number(value: float, kind: str) -> str:
    """A figure as printed: accuracy in percent, perplexity with four digits or so.

    Args:
        kind: ``perplexity`` or ``zero_shot``.
    """
    if not math.isfinite(value):
        return "∞" if value == math.inf else "NaN"
    if kind == "zero_shot":
        return f"{100 * value:.2f}"
    return plain(value)


def plain(value: float) -> str:
    """Two decimals below 100, one below 1000, none above."""
    if not math.isfinite(value):
        return MISSING
    digits = 2 if abs(value) < 99.995 else 1 if abs(value) < 999.95 else 0
    return f"{value:,.{digits}f}" if abs(value) < 1e7 else f"{value:.1e}"


def with_deviation(value: float, deviation: float, kind: str) -> str:
    """``12.34 ± 0.56``, or ``12.34`` where there is one seed."""
    text = number(value, kind)
    return text if math.isnan(deviation) else f"{text} ± {number(deviation, kind)}"


def ranks(texts: Sequence[str | None], values: Sequence[float], lower: bool) -> list[int]:
    """1 for the best, 2 for the second, 0 for the rest; what is printed alike ranks alike.

    With fewer than two entries there is no best. NaN and missing (None) have no rank.
    """
    ranked = [
        (value if lower else -value, text)
        for value, text in zip(values, texts, strict=True)
        if text is not None and not math.isnan(value)
    ]
    order = list(dict.fromkeys(text for _, text in sorted(ranked)))
    places = {text: place + 1 for place, text in enumerate(order[:2])} if len(ranked) > 1 else {}
    return [
        0 if text is None or math.isnan(value) else places.get(text, 0)
        for value, text in zip(values, texts, strict=True)
    ]


def rules_between(labels: Sequence[tuple[str, ...]]) -> frozenset[int]:
    """Rows at which any label but the last changes."""
    return frozenset(i for i in range(1, len(labels)) if labels[i][:-1] != labels[i - 1][:-1])
