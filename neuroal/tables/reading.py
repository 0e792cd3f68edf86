"""Records → frames: one row a run, and one row a result (a run and a task)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuroal.errors import UserError
from neuroal.records.naming import competitor, method_name, model_name, sparsity_name
from neuroal.records.schema import HEADLINES, Record
from neuroal.tables.selection import Selection

RECORD = re.compile(r"[0-9a-f]{16}\.json")
SETTINGS = (
    "model.path",
    "model.revision",
    "model.dtype",
    "model.include",
    "model.exclude",
    "rules",
    "calibration.name",
    "calibration.path",
    "calibration.windows",
    "calibration.search_windows",
    "calibration.seqlen",
    "calibration.seed",
    "task.seqlen",
    "task.limit",
)
"""Keys that must be one in everything that a table compares, or be asked for."""
RUN = ("identity", "model", "pruner", "competitor", "sparsity", "ratio", "seed")
FEW = 400
"""Up to here reading in one process is as fast."""


@dataclass(frozen=True)
class Curve:
    """What a search saw: the candidates that it measured in full, and which one won."""

    step: str
    candidates: tuple[float, ...]
    criteria: tuple[float, ...]
    winner: float


@dataclass(frozen=True)
class Shape:
    """What the plots show of one run. `densities`: of each block, mean over its linears."""

    run: Mapping[str, Any]
    densities: tuple[float, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Found:
    """What the records of a folder say.

    Attributes:
        runs: one row a record: `RUN`, achieved sparsity, ``seconds``, ``peak_bytes``, ``device``.
        results: one row a record and task: `RUN`, ``task``, ``kind``, ``value``, ``stderr``,
            ``dense`` and the `SETTINGS`. ``value`` is a perplexity or an accuracy (a share).
        shapes: densities and searches, for plots.
        left_out: results that were measured on part of a task and not asked for.
    """

    runs: pd.DataFrame
    results: pd.DataFrame
    shapes: Sequence[Shape]
    left_out: int = 0


def read_records(folder: str | Path, selection: Selection | None = None) -> Found:
    """Read all records of `folder`; their order in it does not matter.

    Raises:
        UserError: no folder, no records, a record that cannot be read; or all results were
            measured under ``task.limit`` and that was not asked for.
    """
    wanted = selection or Selection()
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"out={folder}: no such folder; give the one that the records are in")
    paths = sorted(path for path in root.iterdir() if RECORD.fullmatch(path.name))
    if not paths:
        raise UserError(f"out={folder}: holds no records; run something with out={folder} first")
    paths = [path for path in paths if wanted.knows(path.stem)]
    records = [found for found in _read_all(paths, wanted) if found is not None]
    if not records:
        raise UserError(f"out={folder}: none of its records {wanted.text}")
    results = [result for _, rows, _ in records for result in rows]
    kept = [result for result in results if wanted.allows(result)]
    if results and not kept:
        raise UserError(_nothing(folder, results))
    columns = [*RUN, "task", "kind", "value", "stderr", "dense", *SETTINGS]
    return Found(
        runs=pd.DataFrame([run for run, _, _ in records]),
        results=pd.DataFrame(kept, columns=columns),
        shapes=[shape for _, _, shape in records],
        left_out=sum(wanted.limited_only(result) for result in results),
    )


def _nothing(folder: str | Path, results: Sequence[Mapping[str, Any]]) -> str:
    limits = sorted({r["task.limit"] for r in results if r["task.limit"] is not None})
    if limits:
        return (
            f"out={folder}: all results were measured on part of their task (task.limit="
            f"{','.join(map(str, limits))}); add --limited to show them, marked as such"
        )
    return f"out={folder}: no result is of a task that was asked for"


Read = tuple[dict[str, Any], list[dict[str, Any]], Shape]


def _read_all(paths: Sequence[Path], wanted: Selection) -> Iterable[Read | None]:
    if len(paths) <= FEW:
        return [_read(path, wanted) for path in paths]
    with ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_read, paths, [wanted] * len(paths), chunksize=100))


def _read(path: Path, wanted: Selection) -> Read | None:
    """One record as rows; None where the selection leaves it out."""
    try:
        record = Record.from_dict(json.loads(without_ratios(path.read_text())))
        if record.identity != path.stem:
            raise ValueError(f"it says that it is {record.identity}")
        return _rows(record) if wanted.matches(record.config) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"record {path}: cannot be read ({error}); move it away") from error


def without_ratios(text: str) -> str:
    """A record's JSON without the plan's ratios, which are nearly all of it and not needed here.

    Records are written with an indent of one, so a line of two blanks and a brace ends what a line
    ``  "ratios": {`` began; text of another layout is returned as it is.
    """
    begin = text.find('\n  "ratios": {\n')
    end = text.find("\n  }", begin)
    return text if begin < 0 or end < 0 else f'{text[:begin]}\n  "ratios": {{{text[end:]}'


def _rows(record: Record) -> Read:
    config, costs = record.config, record.costs
    key = {
        "identity": record.identity,
        "model": model_name(config),
        "pruner": method_name("pruner", config["pruner"]),
        "competitor": competitor(config),
        "sparsity": sparsity_name(config),
        "ratio": float(config["sparsity"]["ratio"]),
        "seed": int(config["seed"]),
    }
    run = {
        **key,
        "achieved": float(record.sparsity["overall"]),
        "device": str(record.environment["device"]),
        "seconds": dict(costs["seconds"]),
        "peak_bytes": dict(costs["peak_bytes"]),
    }
    settings = {name: _at(config, name) for name in SETTINGS}
    results = [
        {**key, **settings, **_result(task, entry)}
        for task, entry in sorted(record.metrics.items())
    ]
    shape = Shape(key, tuple(record.densities().values()), tuple(_curves(record.plan)))
    return run, results, shape


def _at(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = config[part]
    return " ".join(map(str, config)) if isinstance(config, list) else config


def _result(task: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    kind, pruned = entry["kind"], entry["pruned"]
    figure, error = HEADLINES[kind]
    value = float(pruned[figure])
    return {
        "task": task,
        "kind": kind,
        # No figure is the worst, not a missing one.
        "value": math.inf if math.isnan(value) else value,
        "stderr": math.nan if pruned[error] is None else float(pruned[error]),
        "dense": float(entry["dense"][figure]),
        "task.limit": entry["limit"],
        "task.seqlen": entry["seqlen"],
    }


def _curves(plan: Mapping[str, Any]) -> Iterator[Curve]:
    report = plan.get("report", {})
    for step in ("block", "row"):
        if f"candidates_{step}" not in report:
            continue
        pairs = zip(report[f"candidates_{step}"], report[f"criterion_{step}"], strict=True)
        # An early or adaptive search does not come to the criterion of every candidate.
        known = [(float(x), float(criterion)) for x, criterion in pairs if criterion is not None]
        candidates, criteria = zip(*known, strict=True)
        yield Curve(step, candidates, criteria, float(report[f"lambda_{step}"]))
