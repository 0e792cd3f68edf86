"""Samples of a task: one JSON object for each document that lm-eval evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuroal.files.atomic import write_bytes

FOLDER = "samples"
"""Folder under ``out`` with the samples of pruned models: IDENTITY/TASK.jsonl."""


def samples_path(out: Path, identity: str, task: str) -> Path:
    """Return the file of the samples of a pruned model."""
    return out / FOLDER / identity / f"{task}.jsonl"


def take_samples(figures: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the samples in `figures` to `path`, if there are any; return the other figures."""
    samples = figures.get("samples")
    if samples is None:
        return figures
    lines = [
        json.dumps({"task": task, **row}, ensure_ascii=False, default=str)
        for task, rows in samples.items()
        for row in rows
    ]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return {name: value for name, value in figures.items() if name != "samples"}
