"""What came of a run, in one line for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroal.config import RunConfig
from neuroal.records.naming import tags_of
from neuroal.records.schema import HEADLINES, Record


def outcome_line(config: RunConfig, record: Record, path: Path) -> str:
    """Methods, each task's figure dense → pruned, the share of zeros, and where the record is."""
    figures = [f"{task} {_change(found)}" for task, found in record.metrics.items()]
    zeros = f"{record.sparsity['overall']:.4f} zeros"
    return f"{', '.join(tags_of(config))}: {'; '.join([*figures, zeros])}; record {path}"


def _change(found: Mapping[str, Any]) -> str:
    headline, _ = HEADLINES[found["kind"]]
    limited = f" (limit {found['limit']})" if found["limit"] is not None else ""
    return f"{found['dense'][headline]:.4g} → {found['pruned'][headline]:.4g}{limited}"
