"""The script behind results/smollm2.md, on a shipped model and data written for the test."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.rows import ARC, RTE, write_jsonl

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TEXT = "the old sea was calm and the ship went on under a pale sky toward the cape " * 40
BOOLQ = [{"question": "is the sea old", "passage": "The sea is old.", "idx": 0, "label": 1}] * 4
WINOGRANDE = [
    {"sentence": "The cup missed the box as _ was small.", "option1": "cup", "option2": "box"}
    | {"answer": "2"}
] * 4
OPENBOOKQA = [{**row, "question_stem": row["question"]} for row in ARC]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name, split, rows in (
        ("wikitext-2-raw-v1", "test", [{"text": TEXT}]),
        ("ptb_text_only", "test", [{"sentence": TEXT}]),
        ("c4_sample", "sample", [{"text": "the ship went on toward the cape"}] * 1480),
        ("glue-rte", "validation", RTE),
        ("winogrande-winogrande_xl", "validation", WINOGRANDE),
        ("super_glue-boolq", "validation", BOOLQ),
        ("ai2_arc-ARC-Easy", "test", ARC),
        ("ai2_arc-ARC-Challenge", "test", ARC),
        ("openbookqa-main", "test", OPENBOOKQA),
    ):
        write_jsonl(folder / name / f"{split}.jsonl", rows)
    return folder


@pytest.mark.slow
def test_all_runs_end_in_two_tables(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    target = tmp_path / "smollm2.md"
    small = ["model=zoo/llama", "task.limit=2", "task.seqlen=64"]
    small += [f"calibration.{key}" for key in ("windows=2", "search_windows=1", "seqlen=32")]
    places = ["--out", str(tmp_path / "runs"), "--target", str(target), f"data.root={data}"]
    monkeypatch.setattr(sys, "argv", ["smollm2.py", "--threads", "1", *places, *small])
    script = importlib.import_module("smollm2")
    monkeypatch.setattr(script, "TOPUPS", {"uniform": [], "neuroal": []})  # the quick ones
    script.main()
    text = target.read_text()
    assert "**A trial: at most 2 windows" in text
    for row in ("| 0 | (dense) |", "| 50 % | uniform |", "| 60 % | neuroal |"):
        assert text.count(row) == 2
    assert len(list((tmp_path / "runs" / "measured").glob("*.json"))) == 9
    assert "zoo/llama, float32; pruned with Wanda, 2 windows of c4_sample rows 0-739" in text
