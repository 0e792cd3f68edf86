"""Hand-written rows in the formats of the real data sets, and functions that write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

Rows = Sequence[Mapping[str, Any]]

HELLASWAG = [
    {
        "ind": i,
        "activity_label": label,
        "ctx_a": a,
        "ctx_b": b,
        "ctx": f"{a} {b}",
        "endings": endings,
        "source_id": f"activitynet~v_{i}",
        "split": "val",
        "split_type": "indomain",
        "label": str(i % 4),
    }
    for i, (label, a, b, endings) in enumerate(
        [
            ("Baking", "A man cracks two eggs.", "he", ["stirs.", "flies.", "sings.", "naps."]),
            ("Rowing", "Two girls lift a boat.", "they", ["eat it.", "row.", "melt.", "ask."]),
            ("Sewing", "A hand threads a needle.", "it", ["barks.", "rains.", "sews.", "is."]),
            ("Chess [title]", "A boy sits.", "he", ["swims.", "digs.", "cooks.", "moves a pawn."]),
            ("Dance", "People gather in a hall.", "they", ["dance.", "fry.", "mow.", "file."]),
        ]
    )
]
RTE = [
    {"sentence1": f"The {a} saw the {b}.", "sentence2": f"A {c} was seen.", "label": y, "idx": i}
    for i, (a, b, c, y) in enumerate(
        [("cat", "dog", "dog", 0), ("king", "ship", "tree", 1), ("boy", "sea", "sea", 0)] * 3
    )
]
ARC = [
    {
        "id": f"q{i}",
        "question": question,
        "choices": {"text": texts, "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[i % 4],
    }
    for i, (question, texts) in enumerate(
        [
            ("What melts in the sun?", ["ice", "stone", "iron", "glass"]),
            ("What do plants need?", ["noise", "light", "paint", "coins"]),
            ("What is a fish?", ["a tool", "a rock", "an animal", "a song"]),
        ]
    )
]


def write_jsonl(path: Path, rows: Rows) -> Path:
    """Write rows as .jsonl or .jsonl.gz; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    """Write rows as Parquet, the format of most data sets on the Hub; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def cached_repository(cache: Path, repo: str, revision: str = "main") -> Path:
    """Create an empty snapshot of a data set in a Hugging Face cache; return its folder."""
    home = cache / f"datasets--{repo.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    reference = home / "refs" / revision
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot
