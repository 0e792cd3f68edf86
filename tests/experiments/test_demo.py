"""`experiments/demo.py`: the table and the picture of two records."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from tests.synthetic import record

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import demo


def test_the_demo_shows_its_records(tmp_path: Path) -> None:
    records = [(name, record(competitor=name)) for name in ("uniform", "neuroal")]
    for _, one in records:
        one.data["wikitext2"] = {"source": "some text"}  # type: ignore[index]
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
    console.print(demo.table(records))
    text = console.export_text()
    assert "zoo/llama, Wanda, perplexity on some text" in text
    for name in ("(dense)", "uniform", "neuroal"):
        assert f" {name} " in text
    path = demo.draw(records, tmp_path / "pictures" / "demo.png")
    assert path.read_bytes().startswith(b"\x89PNG")
