"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from neuroal.records.files import write_bytes
from neuroal.tables import figures, html
from neuroal.tables.cases import CASE, SHARED
from neuroal.tables.labels import label
from neuroal.tables.study import Study
from neuroal.tables.table import MISSING, Cell, Table, number, plain, ranks

Section = tuple[str, str, str]


def report(
    of: Study, made: Sequence[Table], base: str = "", title: str = "NeuroAL: results"
) -> str:
    """The page, as text.

    Args:
        made: the study's `tables`.
        base: what the names of records follow in links, as in ``../runs/``.
    """
    sections = [section for section in _sections(of, made, base) if section[2]]
    links = "".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections)
    body = "".join(
        f'<section id="{name}">\n<h2>{escape(head)}</h2>\n{content}</section>\n'
        for name, head, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_own('report.css')}</style>\n</head>\n<body>\n"
        f"<header><div>\n<h1>{escape(title)}</h1>\n{_summary(of)}</div></header>\n"
        f"<nav><div>{links}</div></nav>\n<main>\n{body}"
        "<footer>Best in bold, second underlined; – is missing. Made from the records beside this "
        "page; figures link to theirs.</footer>\n"
        f"</main>\n<script>\n{_own('report.js')}</script>\n</body>\n</html>\n"
    )


def _own(name: str) -> str:
    return files("neuroal.tables").joinpath(name).read_text(encoding="utf-8")


def _summary(of: Study) -> str:
    wanted, found = int(of.counted["wanted"].sum()), int(of.counted["seeds"].sum())
    expected = of.expected
    seeds = f" with {len(expected.seeds)} seeds" if len(expected.seeds) > 1 else ""
    axes = (
        f"{', '.join(map(label, expected.axis('model')))}; "
        f"{', '.join(map(label, expected.axis('pruner')))}; {', '.join(expected.axis('sparsity'))}."
    )
    return (
        f'<p class="lead">{len(expected.competitors)} top-ups meet in {len(expected.counted):,} '
        f"cases{seeds}: {escape(axes)}</p>\n"
        + html.facts(
            {
                "cases": f"{len(expected.counted):,}",
                "top-ups": f"{len(expected.competitors)}",
                "records": f"{len(of.paid):,}",
                "results found": f"{found:,} of {wanted:,}",
            }
        )
        + html.notes(of.notes)
    )


def _sections(of: Study, made: Sequence[Table], base: str) -> list[Section]:
    by_name = {table.name: table for table in made}

    def shown(*names: str) -> str:
        found = (by_name[name] for name in names if name in by_name)
        return "".join(html.table_block(_without_settings(table), base) for table in found)

    texts = [table.name for table in made if table.name.startswith("perplexity-")]
    missing = by_name["missing"]
    return [
        ("best", "Who wins", _best(of) + shown("wins")),
        ("perplexity", "Perplexity", figures.quality(of) + shown(*texts)),
        ("zero-shot", "Zero-shot tasks", shown("zero-shot")),
        (
            "runtime",
            "Performance and runtime",
            figures.trade(of.trade(), of) + shown("performance-runtime", "runtime"),
        ),
        ("density", "Density by block", figures.density(of)),
        ("criterion", "Criterion by λ", figures.criterion(of)),
        ("missing", "Missing", html.table_block(missing) if missing.rows else ""),
        ("records", "Records", html.table_block(records_table(of), base)),
    ]


def _without_settings(table: Table) -> Table:
    """Without what the head of the page says of all tables."""
    notes = tuple(note for note in table.notes if not note.startswith(SHARED))
    return dataclasses.replace(table, notes=notes)


def _best(of: Study) -> str:
    """In how many cases each competitor is best, as printed; ties count for all."""
    counts = dict.fromkeys(of.expected.competitors, 0)
    decided = 0
    for _, part in of.counted.groupby(CASE, sort=False):
        kind = str(part["kind"].iloc[0])
        got = part[part["state"] != "missing"]
        values = [float(value) for value in got["value"]]
        places = ranks([number(v, kind) for v in values], values, kind == "perplexity")
        decided += 1 in places
        for name, place in zip(got["competitor"], places, strict=True):
            counts[name] += place == 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return (
        "<p>Cases in which each top-up is the best of those that answered; what is printed alike "
        "counts for both.</p>\n" + html.bars({label(name): n for name, n in ordered}, decided)
        if decided
        else ""
    )


def records_table(of: Study) -> Table:
    """One row for each record behind the page, with a link to it."""
    paid = of.paid
    order = ["model", "pruner", "ratio", "competitor", "seed", "identity"]
    results = {
        str(identity): part.sort_values("task")
        for identity, part in of.found.groupby("identity", sort=True)
    }
    rows = []
    for _, run in paid.sort_values(order).iterrows():
        identity = str(run["identity"])
        names = (run["model"], run["pruner"], run["sparsity"], run["competitor"])
        seconds = float(run["together"])
        rows.append(
            (
                Cell(identity, None, 0, (identity,)),
                *(Cell(label(str(name))) for name in names),
                Cell(str(run["seed"]), float(run["seed"])),
                Cell(f"{100 * run['achieved']:.3f} %", float(run["achieved"])),
                Cell(MISSING) if math.isnan(seconds) else Cell(plain(seconds), seconds),
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
        data=paid,
    )


def _listed(results: pd.DataFrame) -> str:
    return ", ".join(
        f"{label(str(row.task))} {number(float(row.value), str(row.kind))}"
        for row in results.itertuples()
    )


def write_report(
    of: Study, made: Sequence[Table], records: Path, folder: Path | None = None
) -> Path:
    """Write report.html into `folder` (None: beside the records, which it links to)."""
    folder = folder or records
    way = quote(os.path.relpath(records, folder))
    base = "" if way == "." else f"{way}/"
    path = folder / "report.html"
    write_bytes(path, report(of, made, base=base).encode())
    return path
