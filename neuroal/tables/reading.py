"""Read records into data frames: one row per run, and one row per result (run and task)."""

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

from neuroal.config.naming import competitor, method_name, model_name, sparsity_name
from neuroal.errors import UserError, shortened
from neuroal.evaluation.task_table import KINDS
from neuroal.files.atomic import without_ratios
from neuroal.files.sealed import DAMAGE, unsealed
from neuroal.records.schema import Record
from neuroal.records.summary import bos_of
from neuroal.tables.mask_counts import wrong_count
from neuroal.tables.packed import is_packed, unpacked
from neuroal.tables.selection import Selection, setting

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
    "calibration.bos",
    "calibration.seed",
    "task.seqlen",
    "task.bos",
    "task.limit",
)
"""Keys whose values must be unique among the results of a table, unless they are selected."""
RUN = ("identity", "model", "pruner", "competitor", "sparsity", "ratio", "seed")
"""Columns that identify a run."""
FEW = 400
"""Number of records up to which one process reads as fast as several."""


@dataclass(frozen=True)
class Curve:
    """Criterion by candidate (λ) of one step of a search, ``block`` or ``row``."""

    step: str
    candidates: tuple[float, ...]
    criteria: tuple[float, ...]
    winner: float


@dataclass(frozen=True)
class RunCurves:
    """The curves of one run, for plots.

    Attributes:
        run: the values of `RUN`.
        densities: mean density of the linears of each block.
        curves: steps of the search, if there was one.
    """

    run: Mapping[str, Any]
    densities: tuple[float, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class RecordFrames:
    """The records of a folder as data frames.

    Attributes:
        runs: one row per record: `RUN`, achieved sparsity, ``seconds``, ``peak_bytes``,
            ``device``, ``samples`` (`Record.samples`).
        results: one row per record and task: `RUN`, ``task``, ``kind``, ``value``, ``stderr``,
            ``dense``, ``dense_stderr`` and the `SETTINGS`. ``value`` is a perplexity or an accuracy
            (a share).
        left_out: number of results on part of a task that are not selected.
    """

    runs: pd.DataFrame
    results: pd.DataFrame
    curves: Sequence[RunCurves]
    left_out: int = 0


def read_records(folder: str | Path, selection: Selection | None = None) -> RecordFrames:
    """Read the selected records of `folder`; None selects all results on whole tasks.

    `folder` may also be a file that `packed.pack` wrote.

    Raises:
        UserError: there is no such folder, no record, no selected record or result, or a record
            cannot be read.
    """
    selection = selection or Selection()
    root = Path(folder)
    if is_packed(root):
        entries: Iterable[Rows | None] = [
            _selected_rows(record, f"record {record.identity} of {root}", selection)
            for record in unpacked(root)
        ]
    else:
        entries = _read_all(_chosen(record_paths(root), selection), selection)
    records = [entry for entry in entries if entry is not None]
    if not records:
        raise UserError(f"out={folder}: none of its records {selection.text}")
    results = [result for _, rows, _ in records for result in rows]
    selected = [result for result in results if selection.allows(result)]
    if results and not selected:
        raise UserError(_no_results(folder, results))
    columns = [*RUN, "task", "kind", "value", "stderr", "dense", "dense_stderr", *SETTINGS]
    return RecordFrames(
        runs=pd.DataFrame([run for run, _, _ in records]),
        results=pd.DataFrame(selected, columns=columns),
        curves=[curves for _, _, curves in records],
        left_out=sum(selection.limited_only(result) for result in results),
    )


def record_paths(folder: Path) -> list[Path]:
    """Return the files of the records in `folder`, by identity.

    Raises:
        UserError: there is no such folder, or no record.
    """
    if not folder.is_dir():
        raise UserError(f"out={folder}: no such folder; give the folder of the records")
    paths = sorted(path for path in folder.iterdir() if RECORD.fullmatch(path.name))
    if not paths:
        raise UserError(f"out={folder}: holds no records; start a run with out={folder} first")
    return paths


def all_records(folder: Path) -> list[Record]:
    """Read all records of a folder, or of a file of packed records.

    Raises:
        UserError: there is no record, or one cannot be read.
    """
    return unpacked(folder) if is_packed(folder) else list(map(record_at, record_paths(folder)))


def _chosen(paths: Sequence[Path], selection: Selection) -> Sequence[Path]:
    if selection.identities is None:
        return paths
    return [path for path in paths if path.stem in selection.identities]


def _no_results(folder: str | Path, results: Sequence[Mapping[str, Any]]) -> str:
    limits = sorted({r["task.limit"] for r in results if r["task.limit"] is not None})
    if limits:
        return (
            f"out={folder}: all results were measured on part of their task (task.limit="
            f"{','.join(map(str, limits))}); add --limited to show them, marked as such"
        )
    return f"out={folder}: no result is of a selected task"


Rows = tuple[dict[str, Any], list[dict[str, Any]], RunCurves]
"""A record's row of `RecordFrames.runs`, its rows of `RecordFrames.results`, and its curves."""


def _read_all(paths: Sequence[Path], selection: Selection) -> Iterable[Rows | None]:
    if len(paths) <= FEW:
        return [_read(path, selection) for path in paths]
    with ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_read, paths, [selection] * len(paths), chunksize=100))


def _read(path: Path, selection: Selection) -> Rows | None:
    return _selected_rows(record_at(path), f"record {path}", selection)


def record_at(path: Path) -> Record:
    """Read one record without the ratios of its plan.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = unsealed(path.read_text(encoding="utf-8"))
        record = Record.from_dict(json.loads(without_ratios(text)))
        if record.identity != path.stem:
            raise ValueError(f"its identity is {record.identity}")
    except (OSError, UserError, *DAMAGE) as error:
        raise UserError(_unreadable(f"record {path}", error)) from error
    return record


def _unreadable(name: str, error: Exception) -> str:
    return f"{name}: cannot be read ({shortened(error)}); move it away"


def _selected_rows(record: Record, name: str, selection: Selection) -> Rows | None:
    """Return the rows of a record, which messages call `name`; None if it is not selected.

    Raises:
        UserError: a field is damaged, or the masks do not have the zeros of their budget.
    """
    if selection.identities is not None and record.identity not in selection.identities:
        return None
    try:
        if not selection.matches(record.config):
            return None
        rows, problem = _rows(record, selection.names), wrong_count(record)
    except (UserError, *DAMAGE) as error:
        raise UserError(_unreadable(name, error)) from error
    if problem:
        raise UserError(f"{name}: {problem}; move it away, and run it again")
    return rows


def _rows(record: Record, names: Mapping[str, str]) -> Rows:
    config, costs = record.config, record.costs
    key = {
        "identity": record.identity,
        "model": model_name(config),
        "pruner": method_name("pruner", config["pruner"]),
        "competitor": names.get(record.identity) or competitor(config),
        "sparsity": sparsity_name(config),
        "ratio": float(config["sparsity"]["ratio"]),
        "seed": int(config["seed"]),
    }
    run = {
        **key,
        "achieved": float(record.sparsity["overall"]),
        "device": str(record.environment["device"]),
        "seconds": _numbers(costs["seconds"]),
        "peak_bytes": _numbers(costs["peak_bytes"]),
        "samples": record.samples,
    }
    settings = {name: _setting(config, name) for name in SETTINGS}
    results = [
        {**key, **settings, **_result(task, entry)}
        for task, entry in sorted(record.metrics.items())
    ]
    curves = RunCurves(key, tuple(record.densities().values()), tuple(curves_of(record.plan)))
    return run, results, curves


def _setting(config: Mapping[str, Any], dotted: str) -> Any:
    value = setting(config, dotted)
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _result(task: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    kind, pruned = entry["kind"], entry["pruned"]
    figure, error = KINDS[kind].figure, KINDS[kind].error
    value = float(pruned[figure])
    return {
        "task": task,
        "kind": kind,
        # A NaN figure counts as the worst result, not as a missing one.
        "value": math.inf if math.isnan(value) else value,
        "stderr": _number(pruned[error]),
        "dense": float(entry["dense"][figure]),
        "dense_stderr": _number(entry["dense"].get(error)),
        "task.limit": entry["limit"],
        "task.seqlen": entry["seqlen"],
        "task.bos": bos_of(entry),
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def curves_of(plan: Mapping[str, Any]) -> Iterator[Curve]:
    """Yield the steps of the search over λ, if the plan has one."""
    report = plan.get("report", {})
    for step in ("block", "row"):
        if f"candidates_{step}" not in report:
            continue
        pairs = zip(report[f"candidates_{step}"], report[f"criterion_{step}"], strict=True)
        # An adaptive search does not evaluate every candidate completely.
        complete = [(float(x), float(value)) for x, value in pairs if value is not None]
        candidates, criteria = zip(*complete, strict=True)
        yield Curve(step, candidates, criteria, float(report[f"lambda_{step}"]))
