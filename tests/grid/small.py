"""A grid that takes seconds: one embedded model, few tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroal.records.contents import FOLDER

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
FOUR = [*SMALL, "pruner=wanda", "sparsity=s60,s70", "topup=uniform", "refine=none,dsnot"]
"""Overrides of four runs: two sparsities, with and without DSnoT."""
SAME = ("config", "data", "plan", "sparsity", "masks", "metrics")
"""Fields of a record that do not depend on when and where a run is executed."""


def results(out: Path) -> dict[str, Mapping[str, Any]]:
    """Return identity → the fields `SAME` of every record in `out`, which must be complete."""
    fields_by_identity = {}
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        assert path.stem == record["identity"]
        fields = {field: record[field] for field in SAME}
        fields["config"] = {**record["config"], "out": ""}
        fields_by_identity[path.stem] = fields
    return fields_by_identity


def leftovers(out: Path) -> list[str]:
    """Return the files that only a run in progress may have."""
    state = [path.name for path in (out / "state").iterdir() if path.suffix != ".summary"]
    state.remove(FOLDER)  # contents of inputs, kept for machines without them
    return sorted([*state, *(path.name for path in out.glob(".*"))])
