"""A grid that is done in seconds: one embedded model, few tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SMALL = [
    "+experiment=zoo",
    "model=zoo/llama",
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=32",
    "task.seqlen=32",
    "task.limit=2",
    "task.names=[builtin]",
]
FOUR = [*SMALL, "pruner=wanda", "sparsity=s60,s70", "topup=uniform"]
"""Two ratios, with and without DSnoT."""
SAME = ("config", "data", "plan", "sparsity", "masks", "metrics")
"""Fields of a record that a repetition must not change."""


def results(out: Path) -> dict[str, Mapping[str, Any]]:
    """Of every record in `out`, what a repetition must not change; each is whole and complete."""
    found = {}
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        assert path.stem == record["identity"]
        kept = {field: record[field] for field in SAME}
        found[path.stem] = {**kept, "config": {**record["config"], "out": ""}}
    return found


def litter(out: Path) -> list[str]:
    """Files that only a run under way may have."""
    state = [path.name for path in (out / "state").iterdir() if not path.name.endswith(".summary")]
    return sorted([*state, *(path.name for path in out.glob(".*"))])
