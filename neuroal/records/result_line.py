"""The result of a run in one line, and in JSON types."""

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


def result_content(config: RunConfig, record: Record, path: Path) -> dict[str, Any]:
    """Return the methods, each task's figures, zeros, seconds and files of a run.

    ``ratio`` is the figure of the pruned model divided by that of the dense model; None if it is
    not defined. ``wandb`` is the folder that ``wandb sync`` uploads, if there is one.
    """
    names = zip(("model", "pruner", "topup", "sparsity"), tags_of(config), strict=True)
    return {
        **dict(names),
        "tasks": {task: _figures(metrics) for task, metrics in record.metrics.items()},
        "zeros": record.sparsity["overall"],
        "shares": {key: record.sparsity[key] for key in SHARES if key in record.sparsity},
        "seconds": sum(record.costs.get("seconds", {}).values()),
        "identity": record.identity,
        "record": str(path),
        "wandb": _offline_folder(path.parent, record.identity),
    }


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    kind = KINDS[metrics["kind"]]
    dense, pruned = metrics["dense"][kind.figure], metrics["pruned"][kind.figure]
    ratio = pruned / dense if dense else None
    entry = {"figure": kind.label, "dense": dense, "pruned": pruned, "ratio": ratio}
    return {**entry, "limit": metrics["limit"]}


def _offline_folder(out: Path, identity: str) -> str | None:
    """Return the newest folder of W&B in `out` that belongs to a run and is not uploaded yet."""
    folders = [*(out / "wandb").glob(f"*run-*-{identity}")]
    newest = max(folders, key=lambda folder: folder.name.partition("run-")[2], default=None)
    return str(newest) if newest is not None and newest.name.startswith("offline-") else None


def result_line(config: RunConfig, record: Record, path: Path) -> str:
    """Return methods, each task's figure dense → pruned, zeros, seconds and the record's path."""
    return line_of(result_content(config, record, path))


def line_of(content: Mapping[str, Any]) -> str:
    """Return the line for `result_content`."""
    methods = ", ".join(content[key] for key in ("model", "pruner", "topup", "sparsity"))
    figures = [f"{task} {_change(entry)}" for task, entry in content["tasks"].items()]
    zeros = f"{content['zeros']:.4f} zeros"
    shares = [f"{share:.4f} of the {key}" for key, share in content["shares"].items()]
    if shares:
        zeros += f" ({', '.join(shares)})"
    seconds = f"{content['seconds']:.1f} s"
    parts = [*figures, zeros, seconds, f"record {content['record']}"]
    if content["wandb"]:
        parts.append(f"upload: wandb sync {content['wandb']}")
    return f"{methods}: {'; '.join(parts)}"


def _change(entry: Mapping[str, Any]) -> str:
    ratio = "" if entry["ratio"] is None else f" (× {entry['ratio']:.3g})"
    limited = f" (limit {entry['limit']})" if entry["limit"] is not None else ""
    return f"{entry['dense']:.4g} → {entry['pruned']:.4g}{ratio}{limited}"
