"""HTML of tables, plots and notes. All functions escape their text."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from neuroal.tables.table import MISSING, Cell, Table

CLASSES = {1: "first", 2: "second"}
"""Standing of a cell → CSS class."""
FEW_ROWS = 8
"""Maximum number of rows of a table without a filter."""


def table_block(table: Table, base: str | None = "") -> str:
    """Return a table with its title, filter and notes; a record's address starts with `base`.

    None: the records have no files of their own.
    """
    name = escape(table.name)
    field = (
        f'<input type="search" data-for="table-{name}" placeholder="Filter rows" '
        f'aria-label="Filter rows: {escape(table.title)}">'
        if len(table.rows) > FEW_ROWS
        else ""
    )
    return (
        f'<div class="tools"><h3>{escape(table.title)}</h3>{field}</div>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">\n'
        f"{_table(table, base)}</div>\n{notes(table.notes)}"
    )


def _table(table: Table, base: str | None) -> str:
    heads = "".join(
        f'<th scope="col" data-head="{escape(head)}"'
        f"{_class(['label'] if i < table.labels else [])}>"
        f'<button type="button">{escape(head)}</button></th>'
        for i, head in enumerate(table.heads)
    )
    rows = "".join(
        f'<tr data-row="{number}"{_class(["rule"] if number in table.groups else [])}>'
        f"{''.join(_cell(cell, i < table.labels, base) for i, cell in enumerate(row))}</tr>\n"
        for number, row in enumerate(table.rows)
    )
    name = escape(table.name)
    return (
        f'<table id="table-{name}" class="sortable {name}"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table>"
    )


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _cell(cell: Cell, is_label: bool, base: str | None) -> str:
    names = ["label"] if is_label else []
    names += [CLASSES[cell.standing]] if cell.standing else []
    names += ["none"] if cell.text == MISSING else []
    value = "" if cell.value is None else f' data-value="{_number(cell.value)}"'
    return f"<td{_class(names)}{value}>{_linked(cell, base)}</td>"


def _number(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _linked(cell: Cell, base: str | None) -> str:
    text = escape(cell.text)
    if len(cell.records) == 1 and base is not None:
        return f'<a href="{escape(base + cell.records[0])}.json">{text}</a>'
    if cell.records:
        return f'<span title="records {escape(", ".join(cell.records))}">{text}</span>'
    return f"<span>{text}</span>" if cell.standing else text


def notes(texts: Iterable[str]) -> str:
    """Return a list of notes; notes on limits are highlighted."""
    items = "".join(
        f"<li{_class(['warn'] if text.startswith('LIMITED') else [])}>{escape(text)}</li>"
        for text in texts
    )
    return f'<ul class="notes">{items}</ul>\n' if items else ""


def image(svg: str, description: str = "") -> str:
    """Return an embedded SVG, isolated from the styles and ids of the page."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(description)}">'


def panel(svg: str, caption: str, description: str) -> str:
    """Return a plot with its caption; `description` completes its alternative text."""
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f"{image(svg, f'{description}: {caption}')}</figure>\n"
    )


def panels(items: Iterable[str], wide: bool = False) -> str:
    """Return plots side by side, as many as fit the page."""
    return f'<div class="panels{" wide" if wide else ""}">\n{"".join(items)}</div>\n'


def legend(swatches: Mapping[str, str]) -> str:
    """Return a legend from printed name → SVG of the line."""
    items = "".join(f"<li>{image(svg)}{escape(name)}</li>" for name, svg in swatches.items())
    return f'<ul class="legend">{items}</ul>\n'


def stacked_bars(counts: Mapping[str, Sequence[int]], parts: Sequence[str]) -> str:
    """Return a bar for each name, divided by the counts of `parts`, with a legend."""
    rows = "".join(
        f"<span>{escape(name)}</span>"
        f'<span class="count">{" / ".join(f"{count:,}" for count in of_parts)}</span>'
        f'<span class="track">{_segments(of_parts, parts)}</span>\n'
        for name, of_parts in counts.items()
    )
    keys = "".join(
        f'<li><span class="key part{i}"></span>{escape(part)}</li>' for i, part in enumerate(parts)
    )
    return f'<ul class="legend">{keys}</ul>\n<div class="bars">\n{rows}</div>\n'


def _segments(counts: Sequence[int], parts: Sequence[str]) -> str:
    total = max(sum(counts), 1)
    return "".join(
        f'<span class="part{i}" style="width:{100 * count / total:.2f}%" '
        f'title="{count:,} of {total:,} {escape(part)}"></span>'
        for i, (count, part) in enumerate(zip(counts, parts, strict=True))
        if count
    )


def details(summary: str, content: str, opened: bool) -> str:
    """Return a foldable part of the page."""
    return (
        f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>\n"
        f"{content}</details>\n"
    )


def facts(items: Mapping[str, str]) -> str:
    """Return name → figure in large print."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in items.items()
    )
    return f'<dl class="facts">{rows}</dl>\n'
