"""Files of a run in progress, from which an interrupted run resumes.

``OUT/IDENTITY.json`` is the record. It is written as soon as the model is pruned, and every task
adds its metrics. ``OUT/state`` holds the plan until the record exists, the packed masks until all
tasks are evaluated, and the lock of the process that executes the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from neuroal.errors import UserError
from neuroal.files.atomic import write_json
from neuroal.files.lock import leased
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.packed import PackedMasks
from neuroal.records.schema import Record
from neuroal.records.store import load_masks, load_record, save_masks, save_record
from neuroal.records.summary import STATE_FOLDER, Summary, summary_path
from neuroal.sparsity.allocation import Allocation


class Busy(UserError):
    """Another process holds the lock of this run."""


class RunFiles:
    """Results of the finished stages of one run, stored in files.

    Attributes:
        record: record of an earlier attempt; None if there is none.
        allocation: plan of an earlier attempt; None if there is none.
        costs: costs of the finished stages (`StageCosts.to_dict`).
    """

    def __init__(self, out: Path, identity: str) -> None:
        self.identity = identity
        self.record_path = out / f"{identity}.json"
        self._plan = out / STATE_FOLDER / f"{identity}.plan"
        self._masks = out / STATE_FOLDER / f"{identity}.masks.npz"
        self._saved_masks = out / f"{identity}.masks.npz"
        self.record = load_record(self.record_path) if self.record_path.exists() else None
        self.allocation: Allocation | None = None
        self.costs: Mapping[str, Any] = {}
        if self.record is not None:
            self._take(self.record.plan, self.record.costs)
        elif self._plan.exists():
            self._take(**json.loads(self._plan.read_text()))

    def _take(self, plan: Mapping[str, Any], costs: Mapping[str, Any]) -> None:
        self.allocation, self.costs = Allocation.from_dict(plan), costs

    def has_masks(self) -> bool:
        """Return whether masks are saved beside the record."""
        return self._saved_masks.exists()

    def keep_allocation(self, allocation: Allocation, costs: Mapping[str, Any]) -> None:
        """Store the plan and its costs, unless there is a record, which contains them."""
        if self.record is None:
            write_json(self._plan, {"plan": allocation.to_dict(), "costs": costs})

    def restore(self, decoder: DecoderModel) -> PackedMasks | None:
        """Prune `decoder` by the stored masks and return them; return None if there are none."""
        paths = (self._masks, self._saved_masks)
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            return None
        shapes = {linear.key: (linear.rows, linear.cols) for linear in decoder}
        masks = load_masks(path, shapes)
        for _, linears in decoder.walk(writes=True):
            for linear in linears:
                linear.weight.masked_fill_(masks[linear.key].to(linear.weight.device), 0)
        return masks

    def keep_masks(self, masks: PackedMasks) -> None:
        """Store the masks, one bit per weight."""
        save_masks(masks, self._masks)

    def save(self, record: Record) -> None:
        """Write `record` and its summary."""
        save_record(record, self.record_path.parent)
        summary = Summary.of(record.metrics, record.context, record.costs)
        content = {"size": self.record_path.stat().st_size, **vars(summary)}
        write_json(summary_path(self.record_path), content)

    def finish(self, masks: PackedMasks | None) -> None:
        """Delete the files for resuming; if `masks` are given, save them beside the record."""
        if masks is not None and not self.has_masks():
            if not self._masks.exists():
                self.keep_masks(masks)
            os.replace(self._masks, self._saved_masks)
        for path in (self._plan, self._masks):
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in (self.record_path, self._plan)}:
            for part in folder.glob(f".{self.identity}.*"):  # temporary files of interrupted writes
                part.unlink(missing_ok=True)


@contextmanager
def open_run(out: Path, identity: str) -> Iterator[RunFiles]:
    """Hold the lock of a run and yield its files; raise `Busy` if another process holds it."""
    with leased(out / STATE_FOLDER / f"{identity}.lock") as mine:
        if not mine:
            raise Busy(
                f"out={out}: another process is executing this run ({identity}); wait for it"
            )
        yield RunFiles(out, identity)


def saved_plan(record: Record) -> dict[str, Any]:
    """Return the plan of `record` as ``save.plan`` writes and ``topup=plan`` reads it."""
    return {key: record.plan[key] for key in ("sparsity", "ratios")}


def check_same_masks(record: Record, masks: PackedMasks, device: torch.device) -> None:
    """Raise `UserError` unless `masks`, computed again from the same plan, are those of `record`.

    Otherwise further tasks would be evaluated on another model.
    """
    if masks.digests() != record.masks:
        raise UserError(
            f"record {record.identity}: pruned again on {device}, the masks differ from those "
            f"made on {record.environment.get('device')} or with other data; delete the record"
        )
