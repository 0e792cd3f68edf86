"""The report in a real browser: sorting, filtering, narrow screens and printing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from neuroal.tables.report import report
from neuroal.tables.study import study, tables
from tests.synthetic import fill

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TABLE = "table-perplexity-ptb"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (on Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("records")
    fill(folder, pruners=("wanda",), sparsities=(0.7, 0.8), tasks=("ptb", "rte"))
    next(folder.glob("*.json")).unlink()  # one result is missing
    data = study(folder)
    return report(data, tables(data))


def browse(folder: Path, page: str, *flags: str) -> str:
    """Open `page` in Chromium; return its output."""
    path = folder / "page.html"
    path.write_text(page)
    profile = folder / "profile"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, path.as_uri()]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return process.stdout


def after(folder: Path, page: str, script: str) -> Any:
    """Run `script` in the page; return the value of its variable ``result``, through JSON."""
    code = f"let result; {script}; document.body.dataset.result = JSON.stringify(result)"
    dom = browse(
        folder, page.replace("</body>", f"<script>{{ {code} }}</script></body>"), "--dump-dom"
    )
    value = re.search(r'data-result="([^"]*)"', dom)
    assert value, "a script of the page failed"
    return json.loads(html.unescape(value[1]))


READ = f"""
const table = document.getElementById("{TABLE}");
const column = (n) => [...table.tBodies[0].rows].filter((row) => !row.hidden)
  .map((row) => row.cells[n].textContent);
const head = (n) => table.tHead.rows[0].cells[n];
"""


def test_clicking_a_head_sorts_up_down_and_back(tmp_path: Path, page: str) -> None:
    script = f"""{READ}
      result = [[column(3), head(3).ariaSort]];
      for (let i = 0; i < 3; i++) {{
        head(3).querySelector("button").click();
        result.push([column(3), head(3).getAttribute("aria-sort")]);
      }}"""
    original, up, down, back = after(tmp_path, page, script)
    numbers = [[float(t.replace(",", "")) for t in c if t != "–"] for c, _ in (original, up, down)]
    assert numbers[1] == sorted(numbers[0]) != numbers[0]
    assert numbers[2] == sorted(numbers[0], reverse=True)
    assert (up[1], down[1], back[1]) == ("ascending", "descending", None)
    assert back[0] == original[0]


def test_missing_entries_stay_last_in_both_orders(tmp_path: Path, page: str) -> None:
    script = f"""{READ}
      const n = column(3).includes("–") ? 3 : 4;
      result = [];
      for (let i = 0; i < 2; i++) {{
        head(n).querySelector("button").click();
        result.push(column(n));
      }}
    """
    for column in after(tmp_path, page, script):
        assert column.count("–") == 1
        assert column[-1] == "–"


def test_labels_sort_as_words_and_rows_stay_whole(tmp_path: Path, page: str) -> None:
    script = f"""{READ}
      const texts = (row) => [...row.cells].map((cell) => cell.textContent);
      const rows = () => [...table.tBodies[0].rows].map(texts);
      result = [rows()]; head(2).querySelector("button").click(); result.push(rows());"""
    before, then = after(tmp_path, page, script)
    assert sorted(before) == sorted(then)
    names = [row[2].lower() for row in then]
    assert names == sorted(names) != [row[2].lower() for row in before]


def test_the_filter_keeps_rows_with_all_words(tmp_path: Path, page: str) -> None:
    script = f"""{READ}
      const field = document.querySelector('input[data-for="{TABLE}"]');
      field.value = "80 neuro"; field.dispatchEvent(new Event("input"));
      result = [column(1), column(2)];"""
    assert after(tmp_path, page, script) == [["80 %"], ["NeuroAL"]]


@pytest.mark.parametrize("width", [340, 1200])
def test_the_page_fits_the_screen(tmp_path: Path, page: str, width: int) -> None:
    frame = f'<iframe width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>'
    script = """<script>addEventListener("load", () => {
      const inner = document.querySelector("iframe").contentDocument;
      const wide = [inner.documentElement.scrollWidth, inner.documentElement.clientWidth];
      const sizes = [...inner.querySelectorAll("p, td, figcaption, button")]
        .map((e) => parseFloat(getComputedStyle(e).fontSize));
      document.body.dataset.result = JSON.stringify([...wide, Math.min(...sizes)]);
    })</script>"""
    dom = browse(tmp_path, f"<!doctype html><body>{frame}{script}</body>", "--dump-dom")
    value = re.search(r'data-result="\[(\d+),(\d+),([\d.]+)\]"', dom)
    assert value
    wide, screen, letters = (float(text) for text in value.groups())
    assert wide <= screen
    assert letters >= 12


def test_every_table_has_buttons_as_heads(tmp_path: Path, page: str) -> None:
    script = """
      const tables = [...document.querySelectorAll("table")];
      const buttons = (table) => table.querySelectorAll("th button").length;
      result = tables.map((table) => [table.tHead.rows[0].cells.length, buttons(table)]);
    """
    counts = after(tmp_path, page, script)
    assert len(counts) >= 6
    assert all(heads == buttons > 0 for heads, buttons in counts)


def test_printed_pages_repeat_heads_and_unfold_all_parts(tmp_path: Path, page: str) -> None:
    target = tmp_path / "page.pdf"
    browse(tmp_path, page, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    assert target.read_bytes().startswith(b"%PDF")
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("reading the PDF needs pdftotext (on Debian: apt install poppler-utils)")
    text = subprocess.run([reader, "-layout", target, "-"], capture_output=True, text=True).stdout
    pages = text.split("\f")
    for printed in pages:
        if re.search(r"^\s*[0-9a-f]{16}\s", printed, flags=re.M):
            assert re.search(r"Record\s+Model\s+Pruner", printed)
    assert "Filter rows" not in text
    assert re.search(r"perplexity\s", text)


@pytest.mark.parametrize("room", [0, 25, 50])
def test_printed_headings_stay_with_what_follows(tmp_path: Path, page: str, room: int) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("reading the PDF needs pdftotext (on Debian: apt install poppler-utils)")
    target = tmp_path / "page.pdf"
    moved = page.replace("<section", f'<div style="height: {room}mm"></div><section')
    browse(tmp_path, moved, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    text = subprocess.run([reader, "-layout", target, "-"], capture_output=True, text=True).stdout
    parts = re.findall(r"<(?:h2|h3|summary)>([^<]+)</(?:h2|h3|summary)>", page)
    headings = {html.unescape(part) for part in parts}
    assert len(headings) > 10
    for printed in text.split("\f"):
        rows = [row.strip() for row in printed.splitlines() if row.strip()]
        assert not headings & set(rows[-3:]), f"a heading without content ends a page: {rows[-3:]}"
