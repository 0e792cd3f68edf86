"""Write tables as Markdown, LaTeX, CSV, Parquet and text. The output is deterministic."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from neuroal.files.atomic import write_bytes
from neuroal.tables.table import MISSING, Cell, Table

LONGEST = 45
"""Maximum number of rows on a LaTeX page; longer tables are written as ``longtable``."""
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

    Needs ``\usepackage{booktabs}``, and ``longtable`` for more than `LONGEST` rows.
    """
    long = len(table.rows) > LONGEST
    columns = "l" * table.labels + "r" * (len(table.heads) - table.labels)
    caption = " ".join((f"{table.title}.", *table.notes))
    named = rf"\caption{{{escaped(caption)}}}\label{{tab:{table.name}}}"
    heads = _ampersands([escaped(head) for head in table.heads])
    body = []
    for number, row in enumerate(table.rows):
        body += [r"\midrule"] if number in table.groups else []
        body.append(_ampersands([_latex_cell(cell) for cell in row]))
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
    """Return `text` with the special characters of LaTeX escaped."""
    return text.translate({ord(char): escape for char, escape in ESCAPES.items()})


def _ampersands(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


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
