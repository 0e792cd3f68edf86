"""The result of a run as one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroal.config.naming import tags_of
from neuroal.config.schema import RunConfig
from neuroal.evaluation.task_table import KINDS
from neuroal.records.schema import Record

SHARES = ("blocks", "model")
"""Shares of zeros beside that of the prunable weights, which earlier records lack."""


def result_line(config: RunConfig, record: Record, path: Path) -> str:
    """Return the methods, each task's figure dense → pruned, the sparsity and the record's path."""
    figures = [f"{task} {_change(metrics)}" for task, metrics in record.metrics.items()]
    zeros = f"{record.sparsity['overall']:.4f} zeros"
    shares = [f"{record.sparsity[k]:.4f} of the {k}" for k in SHARES if k in record.sparsity]
    if shares:
        zeros += f" ({', '.join(shares)})"
    return f"{', '.join(tags_of(config))}: {'; '.join([*figures, zeros])}; record {path}"


def _change(metrics: Mapping[str, Any]) -> str:
    headline = KINDS[metrics["kind"]].figure
    limited = f" (limit {metrics['limit']})" if metrics["limit"] is not None else ""
    return f"{metrics['dense'][headline]:.4g} → {metrics['pruned'][headline]:.4g}{limited}"
