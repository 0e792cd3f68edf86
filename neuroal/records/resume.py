"""Files of a run in progress, from which an interrupted run resumes.

``OUT/IDENTITY.json`` is the record. It is written as soon as the model is pruned, and every task
adds its metrics. ``OUT/state`` holds the plan until the record exists, the packed masks until all
tasks are evaluated, and the lock of the process that executes the run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from neuroal.errors import UserError
from neuroal.files.atomic import JsonTexts
from neuroal.files.lock import LEASE, leased
from neuroal.files.process import is_temporary, remove_abandoned
from neuroal.files.sealed import DAMAGE, read_sealed, write_sealed
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.packed import PackedMasks
from neuroal.records.schema import Record
from neuroal.records.store import (
    DamagedRecord,
    are_stored,
    load_masks,
    load_record,
    save_masks,
    save_record,
)
from neuroal.records.summary import STATE_FOLDER, Summary, summary_path
from neuroal.sparsity.allocation import Allocation

log = logging.getLogger(__name__)


class Busy(UserError):
    """Another process holds the lock of this run."""


class RunFiles:
    """Results of the finished stages of one run, stored in files.

    Plan and masks are stored with digests. A file that does not match its digest is not used; its
    content is computed again.

    Attributes:
        scratch: path beside which temporary folders are made.
        record: record of an earlier attempt; None if there is none.
        allocation: plan of an earlier attempt; None if there is none.
        costs: costs of the finished stages (`StageCosts.to_dict`).
    """

    def __init__(self, out: Path, identity: str) -> None:
        self.identity = identity
        self.record_path = out / f"{identity}.json"
        self._plan = out / STATE_FOLDER / f"{identity}.plan"
        self._masks = out / STATE_FOLDER / f"{identity}.masks.npz"
        self.scratch = out / f"{identity}.offload"
        self._saved_masks = out / f"{identity}.masks.npz"
        self.record: Record | None = None
        self.allocation: Allocation | None = None
        self.costs: Mapping[str, Any] = {}
        self._digests: Mapping[str, str] = {}
        self._texts = JsonTexts()

    def read(self) -> None:
        """Read the results of earlier attempts."""
        self.record = self._read_record()
        if self.record is not None:
            self._take(self.record.plan, self.record.costs, self.record.masks)
        elif (stored := read_sealed(self._plan)) is not None:
            self._take(**stored)

    def _read_record(self) -> Record | None:
        """Return the record of an earlier attempt; set a damaged one aside."""
        if not self.record_path.exists():
            return None
        try:
            record = load_record(self.record_path)
            Allocation.from_dict(record.plan)
            Summary.of(record.metrics, record.context, record.costs, record.samples)
            return record
        except (DamagedRecord, *DAMAGE):
            aside = self.record_path.with_suffix(".json.damaged")
            os.replace(self.record_path, aside)
            text = "%s: damaged; kept as %s, and the run is repeated"
            log.warning(text, self.record_path, aside.name)
            return None

    def _take(
        self, plan: Mapping[str, Any], costs: Mapping[str, Any], masks: Mapping[str, str]
    ) -> None:
        self.allocation, self.costs = Allocation.from_dict(plan), costs
        self._digests = masks

    def discard(self) -> None:
        """Delete the stored plan and masks; a record stays until it is replaced."""
        for path in (self._plan, self._masks):
            path.unlink(missing_ok=True)

    def has_masks(self) -> bool:
        """Return whether the masks of the record are saved beside it, undamaged."""
        return self.record is not None and are_stored(self._saved_masks, self.record.masks)

    def keep_allocation(self, allocation: Allocation, costs: Mapping[str, Any]) -> None:
        """Store the plan and its costs, unless there is a record, which contains them."""
        if self.record is None:
            plan = {"plan": allocation.to_dict(), "costs": costs, "masks": self._digests}
            write_sealed(self._plan, plan, self._texts)

    def masks(self, decoder: DecoderModel) -> PackedMasks | None:
        """Return the stored masks of `decoder`; None if there are none, or if they are damaged."""
        if not self._digests:
            return None
        shapes = {linear.key: (linear.rows, linear.cols) for linear in decoder}
        stored = (load_masks(p, shapes, self._digests) for p in (self._masks, self._saved_masks))
        return next((masks for masks in stored if masks is not None), None)

    def keep_masks(self, masks: PackedMasks) -> None:
        """Store the masks, one bit per weight."""
        save_masks(masks, self._masks)
        self._digests = masks.digests()

    def save(self, record: Record) -> None:
        """Write `record` and its summary."""
        save_record(record, self.record_path.parent, self._texts)
        summary = Summary.of(record.metrics, record.context, record.costs)
        content = {"size": self.record_path.stat().st_size, **vars(summary)}
        write_sealed(summary_path(self.record_path), content)

    def finish(self, masks: PackedMasks | None) -> None:
        """Delete the files for resuming; if `masks` are given, save them beside the record."""
        if masks is not None:
            save_masks(masks, self._saved_masks)
        for path in (self._plan, self._masks):
            path.unlink(missing_ok=True)
        for path in (self.record_path, self._plan, self._masks, self._saved_masks):
            remove_abandoned(path, foreign=True)  # temporary files of interrupted writes
        for folder in {path.parent for path in (self.record_path, self._plan)}:
            for part in folder.glob(f".{self.identity}.*"):
                if part.is_file() and not is_temporary(part):  # of version 0.2.0 or earlier
                    part.unlink(missing_ok=True)


@contextmanager
def open_run(out: Path, identity: str, *, force: bool = False) -> Iterator[RunFiles]:
    """Hold the lock of a run and yield its files; with `force`, ignore earlier results.

    Raises:
        Busy: another process holds the lock.
    """
    with leased(out / STATE_FOLDER / f"{identity}.lock") as mine:
        if not mine:
            raise Busy(
                f"out={out}: another process is executing this run ({identity}); wait for it, or "
                f"up to {LEASE:.0f} seconds if its machine has failed"
            )
        files = RunFiles(out, identity)
        if force:
            files.discard()
        else:
            files.read()
        try:
            remove_abandoned(files.scratch, foreign=True)  # this process holds the lock
            yield files
        finally:
            remove_abandoned(files.scratch, own=True)


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
            f"made on {record.environment.get('device')}; set force=true to do the run again"
        )
