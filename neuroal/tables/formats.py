"""Write tables as Markdown, LaTeX, CSV, Parquet and text. The output is deterministic."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from neuroal.files.atomic import write_bytes
from neuroal.tables.table import MISSING, Cell, Table

LONGEST = 40
"""Number of rows that fill a LaTeX page."""
RULE = 0.6
"""Height of a rule between two rows, in rows."""
PACKAGES = ("booktabs", "graphicx")
"""LaTeX packages that every table needs, named in its first line."""
ESCAPES = {char: rf"\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
    "λ": r"$\lambda$",
    "†": r"$^\dagger$",
    "|": r"$\vert$",
}


def markdown(table: Table) -> str:
    """Return a pipe table with the best bold, the second underlined, and the notes below."""
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
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.standing, text)


def latex(table: Table) -> str:
    r"""Return a booktabs table with the best in ``\textbf`` and the second in ``\underline``.

    It is scaled down to the width of the text, if it is wider. A table of more rows than
    fill a page (`LONGEST`) is divided.
    """
    parts = _pages(table)
    lines = ["% " + " ".join(rf"\usepackage{{{package}}}" for package in PACKAGES)]
    for number, rows in enumerate(parts, 1):
        last = number == len(parts)
        caption = " ".join((f"{table.title}.", *table.notes)) if number == 1 else table.title
        named = escaped(caption + (f" ({number} of {len(parts)})" if len(parts) > 1 else ""))
        lines += [
            rf"\begin{{table}}{'[p]' if len(parts) > 1 else ''}",
            r"\centering\footnotesize",
            rf"\caption{{{named}}}" + (rf"\label{{tab:{table.name}}}" if number == 1 else ""),
            r"\par\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            *_tabular(table, rows),
            "}",
            r"\end{table}",
            *([] if last else [r"\clearpage"]),
        ]
    return "\n".join(lines) + "\n"


def _pages(table: Table) -> list[range]:
    """Return the numbers of the rows of each page; pages end between groups where possible."""
    pages: list[range] = []
    start, total = 0, len(table.rows)
    while not pages or start < total:
        end, height = start, 0.0
        while end < total and height < LONGEST:
            height += 1 + RULE * (end in table.groups)
            end += 1
        if end < total:
            ends = [row for row in table.groups if start + LONGEST // 2 < row <= end]
            end = max(ends, default=end)
        pages.append(range(start, end))
        start = end
    return pages


def _tabular(table: Table, rows: range) -> list[str]:
    """Return some rows of a table as ``tabular``."""
    columns = "l" * table.labels + "r" * (len(table.heads) - table.labels)
    heads = _ampersands([escaped(head) for head in table.heads])
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heads, r"\midrule"]
    for number in rows:
        lines += [r"\midrule"] if number in table.groups and number != rows.start else []
        lines.append(_ampersands([_latex_cell(cell) for cell in table.rows[number]]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def escaped(text: str) -> str:
    """Return `text` with the special characters of LaTeX escaped."""
    return text.translate({ord(char): escape for char, escape in ESCAPES.items()})


def _ampersands(texts: Sequence[str]) -> str:
    """Return a row; a bracket or asterisk at its start must not become an argument of the rule."""
    start = "{}" if texts[0].startswith(("[", "*")) else ""
    return start + " & ".join(texts) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.standing, text)


def csv(table: Table) -> str:
    """Return the unrounded figures with a header; missing figures are empty (see ``state``)."""
    text: str = table.data.to_csv(index=False, lineterminator="\n")
    return text


def parquet(table: Table) -> bytes:
    """Return the unrounded figures with their types."""
    data: bytes = table.data.to_parquet(index=False)
    return data


FORMATS: dict[str, Callable[[Table], str | bytes]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv,
    "parquet": parquet,
}


def write(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table in every format as FOLDER/NAME.SUFFIX; return the paths."""
    paths = []
    for table in tables:
        for suffix, form in FORMATS.items():
            content = form(table)
            paths.append(folder / f"{table.name}.{suffix}")
            write_bytes(paths[-1], content.encode() if isinstance(content, str) else content)
    return paths


def terminal(table: Table) -> str:
    """Return the table in aligned columns for a terminal: * marks the best, ° the second."""
    marks = {0: "", 1: "*", 2: "°"}
    lines = [list(table.heads)] + [[c.text + marks[c.standing] for c in row] for row in table.rows]
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
