"""`experiments/architectures.py`: a row tells what works, or why not, in one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import architectures
from small_configs import architectures as model_types

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model_type", "rows"), [("qwen3_moe", "yes"), ("gpt2", "yes"), ("gptj", "blocks only")]
)
def test_an_architecture_that_works_has_no_reason(model_type: str, rows: str) -> None:
    row = architectures.check(model_type)
    assert row.passes
    assert float(row.replay) <= 1e-5
    assert (row.prune, row.rows, row.saved) == ("yes", rows, "yes")


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("xlm", "the output of block 0 is not the input"), ("zamba2", "share their weights")],
)
def test_an_architecture_that_fails_says_why_in_one_line(model_type: str, reason: str) -> None:
    row = architectures.check(model_type)
    assert not row.passes
    assert reason in row.reason
    assert "\n" not in str(row)


def test_the_page_has_a_row_for_every_architecture() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines() if " | " in line]
    assert set(model_types()) <= set(rows)
    passing = re.search(r"^(\d+) of \d+ pass", PAGE, re.MULTILINE)
    assert passing is not None
    assert int(passing[1]) >= 124
    assert "Traceback" not in PAGE
