"""A summary knows the terms of every evaluation, also of records of version 0.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroal.config.schema import TaskConfig
from neuroal.records.store import load_record, save_record
from neuroal.records.summary import Summary, read_summary, summary_path
from tests.synthetic import record

FORMER = Path(__file__).parents[1] / "data" / "records_0_1"


def summary(bos: str | None) -> Summary:
    entries = {
        "ptb": {"kind": "perplexity", "limit": 2, "seqlen": 64},
        "rte": {"kind": "zero_shot", "limit": 2, "seqlen": None},
    }
    if bos is not None:
        entries["ptb"]["bos"] = bos
        entries["rte"]["bos"] = None
    return Summary.of(entries, 128, {})


@pytest.mark.parametrize(
    ("recorded", "requested", "lacking"),
    [
        ("stream", "stream", []),
        ("window", "window", []),
        ("stream", "window", ["ptb"]),
        ("window", "stream", ["ptb"]),
        (None, "stream", []),  # version 0.1
        (None, "window", ["ptb"]),
    ],
)
def test_another_bos_is_due_for_texts_alone(
    recorded: str | None, requested: str, lacking: list[str]
) -> None:
    task = TaskConfig(names=["ptb", "rte"], limit=2, seqlen=64, bos=requested)
    assert summary(recorded).lacks(task, {}) == lacking


def test_a_task_on_other_data_is_due() -> None:
    entry = {"kind": "perplexity", "limit": 2, "seqlen": 64, "bos": "stream", "content": "one"}
    recorded, task = (
        Summary.of({"ptb": entry}, 128, {}),
        TaskConfig(names=["ptb"], limit=2, seqlen=64),
    )
    assert recorded.lacks(task, {"ptb": "one"}) == []
    assert recorded.lacks(task, {"ptb": None}) == []  # a machine without the data
    assert recorded.lacks(task, {"ptb": "two"}) == ["ptb"]


def test_a_summary_file_gives_what_the_record_gives(tmp_path: Path) -> None:
    path = save_record(record(tasks=("ptb", "rte")), tmp_path)
    fields = json.loads(path.read_text())
    assert read_summary(path) == Summary.of(fields["metrics"], fields["context"], fields["costs"])
    assert read_summary(path).terms == {"ptb": (None, 256, "stream"), "rte": (None, None, None)}


def test_a_summary_file_without_bos_is_not_trusted(tmp_path: Path) -> None:
    path = save_record(record(tasks=("ptb",)), tmp_path)
    before = read_summary(path)
    content = {"size": path.stat().st_size, "terms": {"ptb": [None, 256]}, "context": 1}
    summary_path(path).parent.mkdir(exist_ok=True)
    summary_path(path).write_text(json.dumps(content))
    assert read_summary(path) == before


def test_texts_of_version_0_1_were_streams() -> None:
    for path in FORMER.glob("*.json"):
        metrics = load_record(path).metrics
        assert {terms[2] for terms in read_summary(path).terms.values()} == {"stream"}
        assert metrics
