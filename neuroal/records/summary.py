"""What a record has measured, in a file small enough to be read ten thousand times.

A record of a large model holds a ratio for every row. ``OUT/state/IDENTITY.summary`` repeats the
terms of its metrics, and is believed as long as it knows the record's size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroal.config import TaskConfig, default_seqlen
from neuroal.validation import ZERO_SHOT_SETS

STATE = "state"
"""Folder under ``out`` for what runs need while they work, and what is known of them."""
Terms = tuple[int | None, int | None]
"""``limit`` and ``seqlen`` that a task was measured with."""


@dataclass(frozen=True)
class Summary:
    """The gist of a record.

    Attributes:
        terms: of every metric.
        context: of its model.
        seconds: that all stages took.
        peak_bytes: the most memory that one of them held; 0: not measured.
    """

    terms: Mapping[str, Terms]
    context: int | None
    seconds: float = 0.0
    peak_bytes: int = 0

    @classmethod
    def of(
        cls, metrics: Mapping[str, Any], context: int | None, costs: Mapping[str, Any]
    ) -> Summary:
        """From the fields of a record."""
        terms = {name: (found["limit"], found["seqlen"]) for name, found in metrics.items()}
        seconds = sum(costs.get("seconds", {}).values())
        return cls(terms, context, seconds, max(costs.get("peak_bytes", {}).values(), default=0))

    def lacks(self, task: TaskConfig) -> list[str]:
        """The tasks of `task` that were not measured, or on other terms."""
        return [name for name in task.names if not self._holds(name, task)]

    def _holds(self, name: str, task: TaskConfig) -> bool:
        if name not in self.terms:
            return False
        if name in ZERO_SHOT_SETS:
            return self.terms[name] == (task.limit, None)
        if task.seqlen is None and self.context is None:
            return False
        seqlen = task.seqlen or default_seqlen(None, int(self.context or 0), "task.seqlen")
        return self.terms[name] == (task.limit, seqlen)


def summary_path(record: Path) -> Path:
    """Where the summary of the record at `record` is kept."""
    return record.parent / STATE / f"{record.stem}.summary"


def read_summary(record: Path) -> Summary | None:
    """The summary of the record at `record`, from the record itself if need be.

    None: there is no record there, or it is damaged.
    """
    try:
        size = record.stat().st_size
    except FileNotFoundError:
        return None
    try:
        kept = json.loads(summary_path(record).read_text())
        if kept.pop("size") == size:
            terms = {name: (limit, seqlen) for name, (limit, seqlen) in kept.pop("terms").items()}
            return Summary(terms, **kept)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none there, or of another record: what counts is the record
    try:
        found = json.loads(record.read_text())
        return Summary.of(found["metrics"], found["context"], found["costs"])
    except (ValueError, KeyError):
        return None
