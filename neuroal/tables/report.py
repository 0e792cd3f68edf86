"""The report: a self-contained HTML page."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from neuroal.evaluation.task_table import KINDS
from neuroal.files.atomic import write_bytes
from neuroal.tables import figures, html
from neuroal.tables.cases import CASE, LIMITED, SHARED
from neuroal.tables.labels import label
from neuroal.tables.packed import is_packed
from neuroal.tables.samples import sample_tables
from neuroal.tables.study import Study
from neuroal.tables.table import (
    Cell,
    Table,
    figure_cell,
    label_cells,
    number,
    plain,
    standings,
)

TITLE = "NeuroAL: results"
BEST = ("best alone", "tied for best", "not best")
"""Parts of the bars in the section on wins."""
TEXTS = (
    "<p>The most probable continuation of the beginnings of built-in texts, token by token, "
    "before and after pruning; of the first seed.</p>\n"
)
Section = tuple[str, str, str]
"""Id, heading and content."""


def report(study: Study, tables: Sequence[Table], base: str | None = "") -> str:
    """Return the HTML page of a study with its `tables`; links to records start with `base`.

    None: the records have no files of their own.
    """
    sections = [section for section in _sections(study, tables, base) if section[2]]
    links = "".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections)
    body = "".join(
        f'<section id="{name}">\n<h2>{escape(head)}</h2>\n{content}</section>\n'
        for name, head, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}</title>\n<style>\n{_own('report.css')}</style>\n</head>\n<body>\n"
        f"<header><div>\n<h1>{TITLE}</h1>\n{_summary(study)}</div></header>\n"
        f"<nav><div>{links}</div></nav>\n<main>\n{body}"
        "<footer>Best in bold, second underlined, – missing. "
        f"Figures {'name' if base is None else 'link to'} the records that they are computed from."
        "</footer>\n"
        f"</main>\n<script>\n{_own('report.js')}</script>\n</body>\n</html>\n"
    )


def _own(name: str) -> str:
    return files("neuroal.tables").joinpath(name).read_text(encoding="utf-8")


def _summary(study: Study) -> str:
    total, present = int(study.counted["wanted"].sum()), int(study.counted["seeds"].sum())
    expected = study.expected
    seeds = f" with {len(expected.seeds)} seeds" if len(expected.seeds) > 1 else ""
    axes = (
        f"{', '.join(map(label, expected.axis('model')))}; "
        f"{', '.join(map(label, expected.axis('pruner')))}; {', '.join(expected.axis('sparsity'))}."
    )
    return (
        f'<p class="lead">{len(expected.competitors)} top-ups, compared in '
        f"{len(expected.counted):,} cases{seeds}: {escape(axes)}</p>\n"
        + html.facts(
            {
                "cases": f"{len(expected.counted):,}",
                "top-ups": f"{len(expected.competitors)}",
                "records": f"{len(study.costs):,}",
                "results": f"{present:,} of {total:,}",
            }
        )
        + html.notes(study.notes)
    )


def _sections(study: Study, tables: Sequence[Table], base: str | None) -> list[Section]:
    by_name = {table.name: table for table in tables}

    def shown(*names: str) -> str:
        present = (by_name[name] for name in names if name in by_name)
        return "".join(html.table_block(_without_notes_of(study, table), base) for table in present)

    texts = [table.name for table in tables if table.name.startswith("perplexity-")]
    missing = by_name["missing"]
    pairs = html.details("All pairs", shown("pairs"), False) if "pairs" in by_name else ""
    return [
        ("best", "Wins", _best(study) + shown("relative-to-uniform", "wins") + pairs),
        ("perplexity", "Perplexity", figures.quality(study) + shown(*texts)),
        ("zero-shot", "Zero-shot tasks", shown("zero-shot")),
        (
            "runtime",
            "Performance and runtime",
            figures.trade(study.trade(), study) + shown("performance-runtime", "runtime"),
        ),
        ("density", "Density by block", figures.density(study)),
        ("criterion", "Criterion by λ", figures.criterion(study)),
        ("samples", "Texts", _texts(study, base)),
        ("missing", "Missing", html.table_block(missing) if missing.rows else ""),
        ("records", "Records", html.table_block(records_table(study), base)),
    ]


def _texts(study: Study, base: str | None) -> str:
    """Return the texts that runs continued, a folded part for each model and prompt."""
    parts: list[str] = []
    for heading, table in sample_tables(study):
        parts.append(html.details(heading, html.table_block(table, base), opened=not parts))
    return TEXTS + "".join(parts) if parts else ""


def _without_notes_of(study: Study, table: Table) -> Table:
    """Return `table` without the notes that the page's header has, for all or for more tasks."""
    notes = tuple(
        note
        for note in table.notes
        if note not in study.notes and not note.startswith((SHARED, LIMITED))
    )
    return dataclasses.replace(table, notes=notes)


def _best(study: Study) -> str:
    """Return stacked bars: cases in which a competitor is best alone, ties for best, or is not."""
    counts = {name: [0, 0, 0] for name in study.expected.competitors}
    for _, part in study.counted.groupby(CASE, sort=False):
        kind = str(part["kind"].iloc[0])
        present = part[part["state"] != "missing"]
        values = [float(value) for value in present["value"]]
        texts = [number(value, kind) for value in values]
        marks = standings(texts, values, KINDS[kind].lower_is_better)
        first = marks.count(1)
        for name, mark in zip(present["competitor"], marks, strict=True):
            if first:  # a single result is no comparison
                counts[name][2 if mark != 1 else int(first > 1)] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1][0], -item[1][1]))
    if not any(map(sum, counts.values())):
        return ""
    return (
        "<p>Each case compares all top-ups that have a result. Equal printed figures tie.</p>\n"
        + html.stacked_bars({label(name): tuple(parts) for name, parts in ordered}, BEST)
    )


def records_table(study: Study) -> Table:
    """Return a row for each record, with a link to it."""
    order = ["model", "pruner", "ratio", "competitor", "seed", "identity"]
    results = {
        str(identity): part.sort_values("task")
        for identity, part in study.results.groupby("identity", sort=True)
    }
    rows = []
    for _, run in study.costs.sort_values(order).iterrows():
        identity = str(run["identity"])
        names = (run["model"], run["pruner"], run["sparsity"], run["competitor"])
        seconds = float(run["together"])
        rows.append(
            (
                Cell(identity, records=(identity,)),
                *label_cells(*names),
                Cell(str(run["seed"]), float(run["seed"])),
                Cell(f"{100 * run['achieved']:.3f} %", float(run["achieved"])),
                figure_cell(seconds, plain(seconds)),
                Cell(_listed(results[identity])),
            )
        )
    heads = ("Record", "Model", "Pruner", "Sparsity", "Top-up", "Seed", "Achieved", "Seconds")
    return Table(
        name="records-table",
        title=f"{len(rows):,} records",
        heads=(*heads, "Results"),
        labels=5,
        rows=tuple(rows),
        data=study.costs,
    )


def _listed(results: pd.DataFrame) -> str:
    return ", ".join(
        f"{label(str(row.task))} {number(float(row.value), str(row.kind))}"
        for row in results.itertuples()
    )


def write_report(
    study: Study, tables: Sequence[Table], records: Path, folder: Path | None = None
) -> Path:
    """Write report.html to `folder`, by default that of its `records`; return its path."""
    folder = folder or records
    relative = quote(os.path.relpath(records, folder))
    base = None if is_packed(records) else "" if relative == "." else f"{relative}/"
    path = folder / "report.html"
    write_bytes(path, report(study, tables, base=base).encode())
    return path
