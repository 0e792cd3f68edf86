"""LaTeX tables compile, and fit the page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from neuroal.tables.formats import LONGEST, latex
from neuroal.tables.study import study, tables
from neuroal.tables.table import Cell, Table
from tests.synthetic import fill

COMPILER = shutil.which("pdflatex") or shutil.which("tectonic")

pytestmark = pytest.mark.skipif(
    COMPILER is None,
    reason="no LaTeX here (on Debian: apt install texlive-latex-recommended)",
)


def compile_with_packages_of(sources: list[str], folder: Path) -> str:
    """Compile a document that loads what the first lines of `sources` name; return its log."""
    packages = sorted({line for s in sources for line in re.findall(r"\\usepackage{\w+}", s)})
    body = "\n\\clearpage\n".join(sources)
    text = ["\\documentclass{article}", *packages, "\\begin{document}", body, "\\end{document}"]
    (folder / "page.tex").write_text("\n".join(text))
    options = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in str(COMPILER) else []
    command = [str(COMPILER), *options, "page.tex"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout[-2000:]
    log = folder / "page.log"
    return (log.read_text(errors="replace") if log.exists() else "") + ended.stdout + ended.stderr


def assert_fits(log: str) -> None:
    assert not re.findall(r"Overfull.*|Float too large.*", log)


def test_all_tables_of_a_study_compile_and_fit(tmp_path: Path) -> None:
    fill(tmp_path, pruners=("wanda",), sparsities=(0.6, 0.7))
    for path in list(tmp_path.glob("*.json"))[:3]:
        path.unlink()  # some results are missing
    assert_fits(compile_with_packages_of([latex(t) for t in tables(study(tmp_path))], tmp_path))


@pytest.mark.parametrize("group", [1, 3, LONGEST + 5])
def test_wide_and_long_tables_with_any_text_fit(tmp_path: Path, group: int) -> None:
    first = ("[a] 50 % & b_c", "*", "~^\\{}", "λ ≤ 0.1 | <x>".replace("≤", "<"), "† ± × ∞ –")
    rows = tuple(
        tuple(Cell(f"{first[i % 5]} {column}") for column in range(12))
        for i in range(2 * LONGEST + 3)
    )
    table = Table(
        name="any-text",
        title="50 % of a_b & c",
        heads=tuple(f"# {column}" for column in range(12)),
        labels=2,
        rows=rows,
        data=pd.DataFrame(),
        notes=("All: a note of a few words, which is longer than one line. " * 4,),
        groups=frozenset(range(group, len(rows), group)),
    )
    assert_fits(compile_with_packages_of([latex(table)], tmp_path))
    narrow = Table("narrow", "Narrow", ("a", "b"), 1, tuple(r[:2] for r in rows), pd.DataFrame(),
                   table.notes, table.groups)  # fmt: skip
    assert_fits(compile_with_packages_of([latex(narrow)], tmp_path))
