"""Tables as Markdown, LaTeX, CSV and Parquet. The same table gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from neuroal.records.files import write_bytes
from neuroal.tables.table import MISSING, Cell, Table

LONGEST = 45
"""Rows that fit a page; longer tables may break."""
ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
    "λ": r"$\lambda$",
}


def markdown(table: Table) -> str:
    """A pipe table; best bold, second underlined; the notes below."""
    lines = [
        f"### {table.title}",
        "",
        _pipes([_plain(head) for head in table.heads]),
        _pipes(["---" if i < table.labels else "---:" for i in range(len(table.heads))]),
        *(_pipes([_marked(cell) for cell in row]) for row in table.rows),
        *(f"\n{note}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def _pipes(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _plain(text: str) -> str:
    return re.sub(r"([|*_<])", r"\\\1", text)


def _marked(cell: Cell) -> str:
    text = _plain(cell.text)
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank, text)


def latex(table: Table) -> str:
    r"""A booktabs table; best ``\textbf``, second ``\underline``.

    Needs ``\usepackage{booktabs}``, and ``longtable`` where it has more rows than a page.
    """
    long = len(table.rows) > LONGEST
    columns = "l" * table.labels + "r" * (len(table.heads) - table.labels)
    caption = " ".join((f"{table.title}.", *table.notes))
    named = rf"\caption{{{escaped(caption)}}}\label{{tab:{table.name}}}"
    heads = _ampersands([escaped(head) for head in table.heads])
    body = []
    for number, row in enumerate(table.rows):
        body += [r"\midrule"] if number in table.groups else []
        body.append(_ampersands([_set(cell) for cell in row]))
    if long:
        top = [rf"\begin{{longtable}}{{{columns}}}", rf"{named} \\"]
        head = [r"\toprule", heads, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"]
        lines = [*top, *head, *body, r"\end{longtable}"]
    else:
        top = [r"\begin{table}", r"\centering", named, rf"\begin{{tabular}}{{{columns}}}"]
        foot = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        lines = [*top, r"\toprule", heads, r"\midrule", *body, *foot]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """`text` with LaTeX's own signs escaped."""
    return "".join(ESCAPES.get(sign, sign) for sign in text)


def _ampersands(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _set(cell: Cell) -> str:
    text = escaped(cell.text)
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)


def csv(table: Table) -> str:
    """The figures, unrounded, with a header; what is missing is empty and said in ``state``."""
    text: str = table.data.to_csv(index=False, lineterminator="\n")
    return text


def parquet(table: Table) -> bytes:
    """The figures, unrounded, with their types."""
    buffer = BytesIO()
    table.data.to_parquet(buffer, index=False)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Table], str | bytes]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv,
    "parquet": parquet,
}


def write(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table in every format as FOLDER/NAME.SUFFIX; returns the paths."""
    paths = []
    for table in tables:
        for suffix, form in FORMATS.items():
            content = form(table)
            data = content.encode() if isinstance(content, str) else content
            path = folder / f"{table.name}.{suffix}"
            write_bytes(path, data)
            paths.append(path)
    return paths


def terminal(table: Table) -> str:
    """The table in columns, for a terminal; * best, ° second."""
    marks = {0: "", 1: "*", 2: "°"}
    lines = [list(table.heads)] + [[c.text + marks[c.rank] for c in row] for row in table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.heads))]
    texts = [
        "  ".join(
            text.ljust(width) if i < table.labels else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = MISSING * len(texts[0])
    return "\n".join(
        [table.title, "", texts[0], rule, *texts[1:], *(f"\n{n}" for n in table.notes)]
    )
