"""Tables as data, and the page that contains them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
"""Name → measurement."""
Row = Mapping[str, Any]
MISSING = "–"
CARD_NAME = re.compile(r"\b[A-Z]+\d+\b")
MARK = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether both measurements had the same versions of this package and its libraries."""
    return one.get("packages") == other.get("packages")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        head: printed head.
        key: key of the value in a row; a missing value is printed as a dash.
        form: format specification of numbers.
        target: key of the maximum value; a larger value is marked as missed.
    """

    head: str
    key: str
    form: str = ""
    target: str | None = None

    def cell(self, row: Row) -> str:
        value = row.get(self.key)
        if value is None:
            return MISSING
        text = str(value) if isinstance(value, str) else format(value, self.form)
        limit = None if self.target is None else row.get(self.target)
        return f"{text} (missed)" if limit is not None and value > limit else text


class Card(Column):
    """A column with the short name of the card that a row was measured on, as H100."""

    def cell(self, row: Row) -> str:
        name = CARD_NAME.search(str(row.get(self.key)))
        return name[0] if name else MISSING


CARD = Card("card", "device")


@dataclass(frozen=True)
class Table:
    """The columns of a table, and a function from all measurements to its rows."""

    columns: tuple[Column, ...]
    rows: Callable[[Results], Iterable[Row]]

    def __call__(self, results: Results) -> Iterable[str]:
        """Return the lines of a Markdown table; none where nothing was measured."""
        rows = list(self.rows(results))
        if not rows:
            return []
        return [
            _pipes(column.head for column in self.columns),
            "|---" * len(self.columns) + "|",
            *(_pipes(column.cell(row) for column in self.columns) for row in rows),
        ]


Part = Callable[[Results], Iterable[str]]
"""Computes the lines between two marks."""


def named(results: Results, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the measurements of `prefix`, with the rest of their names as printed."""
    for name, result in results.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix).replace("-", ", "), result


def _pipes(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def fill(page: str, parts: Mapping[str, Part], results: Results) -> str:
    """Return `page` with new lines between its marks; all other text is unchanged.

    Marks are ``<!-- table: NAME -->`` and ``<!-- end -->``, each on a line of its own.
    """

    def lines_of(mark: re.Match[str]) -> str:
        if mark["name"] not in parts:
            raise SystemExit(f"table: {mark['name']}: must be one of {', '.join(parts)}")
        text = "\n".join(parts[mark["name"]](results)) or "Not measured."
        return f"{mark[1]}{text}\n{mark[3]}"

    return MARK.sub(lines_of, page)


def blank(parts: Iterable[str]) -> str:
    """Return a page with a mark for each part and no other text."""
    marks = (f"## {name}\n\n<!-- table: {name} -->\n<!-- end -->\n" for name in parts)
    return "\n".join(["# Benchmark\n", *marks])
