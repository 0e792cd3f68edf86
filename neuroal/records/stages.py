"""What a run leaves behind while it is under way, so that it goes on where it was cut off.

``OUT/IDENTITY.json`` is the record: it is written as soon as the model is pruned, and grows with
every task. In ``OUT/state`` are the plan until then, the packed masks until all tasks are measured,
and the lock of the process at work.
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
from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruning import Pruned
from neuroal.records.files import write_json
from neuroal.records.lease import leased
from neuroal.records.schema import Record
from neuroal.records.store import load_masks, load_record, save_masks, save_record
from neuroal.records.summary import STATE, Summary, summary_path
from neuroal.topups.base import Allocation


class Busy(UserError):
    """Another process is at this run."""


class Stages:
    """The finished stages of one run, in files.

    Args:
        out: folder of the records.
        identity: of the run.

    Attributes:
        record: as it was left, if it was begun.
        allocation: the plan that was made, if it was.
        costs: of the stages that are finished (`StageCosts.to_dict`).
    """

    def __init__(self, out: Path, identity: str) -> None:
        self.record_path = out / f"{identity}.json"
        self._identity = identity
        self._plan = out / STATE / f"{identity}.plan"
        self._masks = out / STATE / f"{identity}.masks.npz"
        self._kept_masks = out / f"{identity}.masks.npz"
        self.record = load_record(self.record_path) if self.record_path.exists() else None
        self.allocation: Allocation | None = None
        self.costs: Mapping[str, Any] = {}
        if self.record is not None:
            self._take(self.record.plan, self.record.costs)
        elif self._plan.exists():
            self._take(**json.loads(self._plan.read_text()))

    def _take(self, plan: Mapping[str, Any], costs: Mapping[str, Any]) -> None:
        self.allocation = Allocation(SparsityPlan.from_dict(plan), plan["report"])
        self.costs = costs

    def has_masks(self) -> bool:
        """Whether masks are kept beside the record."""
        return self._kept_masks.exists()

    def keep_allocation(self, allocation: Allocation, costs: Mapping[str, Any]) -> None:
        """Keep the plan, and what it cost, until there is a record."""
        if self.record is None:
            write_json(self._plan, {"plan": planned(allocation), "costs": costs})

    def restore(self, subject: DecoderModel) -> Pruned | None:
        """Prune `subject` by the masks that were kept, if there are any."""
        path = next((path for path in (self._masks, self._kept_masks) if path.exists()), None)
        if path is None:
            return None
        shapes = {linear.key: (linear.rows, linear.cols) for linear in subject}
        masks = load_masks(path, shapes)
        for _, linears in subject.walk(writes=True):
            for linear in linears:
                weight = linear.module.weight.data
                weight.masked_fill_(masks[linear.key].to(weight.device), 0)
        return Pruned(masks)

    def keep_masks(self, pruned: Pruned) -> None:
        """Keep the masks, an eighth of a byte a weight."""
        save_masks(pruned.masks, self._masks)

    def save(self, record: Record) -> None:
        """Write the record as it is now."""
        save_record(record, self.record_path.parent)
        summary = Summary.of(record.metrics, record.context, record.costs)
        known = {"size": self.record_path.stat().st_size, **vars(summary)}
        write_json(summary_path(self.record_path), known)

    def finish(self, keep: Pruned | None) -> None:
        """Drop what only a cut-off run would need; `keep`: masks to keep beside the record."""
        if keep is not None and not self.has_masks():
            if not self._masks.exists():
                self.keep_masks(keep)
            os.replace(self._masks, self._kept_masks)
        for path in (self._plan, self._masks):
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in (self.record_path, self._plan)}:
            for part in folder.glob(f".{self._identity}.*"):  # of writes that were cut off
                part.unlink(missing_ok=True)


@contextmanager
def stages_of(out: Path, identity: str) -> Iterator[Stages]:
    """The stages of a run, while no other process touches them.

    Raises:
        Busy: another one is at it.
    """
    with leased(out / STATE / f"{identity}.lock") as mine:
        if not mine:
            raise Busy(f"out={out}: another process is at this run ({identity}); wait for it")
        yield Stages(out, identity)


def planned(allocation: Allocation) -> dict[str, Any]:
    """The plan and its report, as records hold them."""
    return {**allocation.plan.to_dict(), "report": dict(allocation.report)}


def plan_of(record: Record) -> dict[str, Any]:
    """The plan in `record`, in the form that ``save.plan`` writes and ``topup=plan`` reads."""
    return {key: record.plan[key] for key in ("sparsity", "ratios")}


def check_same(record: Record, pruned: Pruned, device: torch.device) -> None:
    """Make sure that tasks to come are measured on the model that `record` is about.

    Raises:
        UserError: pruned again from the same plan, it came out differently.
    """
    if pruned.masks.digests() != record.masks:
        raise UserError(
            f"record {record.identity}: pruned again on {device}, the masks differ from those "
            f"made on {record.environment.get('device')} or with other data; delete the record"
        )
