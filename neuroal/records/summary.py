"""Summaries of records: small files, so that a grid can read thousands of them quickly.

The record of a large model holds a ratio for every row. ``OUT/state/IDENTITY.summary`` repeats the
settings of its metrics, and is trusted only while it matches the record's file size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroal.config.schema import TaskConfig, default_seqlen
from neuroal.evaluation.task_table import ZERO_SHOT, is_harness
from neuroal.files.atomic import read_text
from neuroal.files.sealed import DAMAGE, unsealed

STATE_FOLDER = "state"
"""Folder under ``out`` for locks, summaries and the files of runs in progress."""
Terms = tuple[int | None, int | None, str | None]
"""``limit``, ``seqlen``, and ``bos`` (or the form of the prompts, for a task of lm-eval)."""


@dataclass(frozen=True)
class Summary:
    """The fields of a record that a grid needs.

    Attributes:
        terms: task → `Terms` of its evaluation.
        context: maximum number of tokens of the model.
        seconds: total time of all stages.
        peak_bytes: largest peak device memory of a stage; 0: not measured.
        data: task → content of its data (`Contents.task`).
        samples: number of texts that were continued (`Record.samples`).
    """

    terms: Mapping[str, Terms]
    context: int | None
    seconds: float = 0.0
    peak_bytes: int = 0
    data: Mapping[str, str | None] = field(default_factory=dict)
    samples: int = 0

    @classmethod
    def of(
        cls,
        metrics: Mapping[str, Any],
        context: int | None,
        costs: Mapping[str, Any],
        samples: Sequence[Any] = (),
    ) -> Summary:
        terms = {
            name: (entry["limit"], entry["seqlen"], entry.get("prompt") or bos_of(entry))
            for name, entry in metrics.items()
        }
        seconds = sum(costs.get("seconds", {}).values())
        peak_bytes = max(costs.get("peak_bytes", {}).values(), default=0)
        data = {name: entry.get("content") for name, entry in metrics.items()}
        return cls(terms, context, seconds, peak_bytes, data, len(samples))

    def lacks(self, task: TaskConfig, data: Mapping[str, str | None]) -> list[str]:
        """Return the tasks of `task` that were not evaluated, or with other terms or data.

        `data` are the present contents of the tasks' data; None: not available on this machine.
        """
        return [
            name
            for name in task.names
            if not (self._holds(name, task) and self._same_data(name, data.get(name)))
        ]

    def lacks_samples(self, task: TaskConfig) -> bool:
        """Return whether fewer texts were continued than `task` asks for."""
        return self.samples < task.samples

    def _same_data(self, name: str, present: str | None) -> bool:
        recorded = self.data.get(name)
        return present is None or recorded is None or present == recorded

    def _holds(self, name: str, task: TaskConfig) -> bool:
        if name not in self.terms:
            return False
        if is_harness(name, task.prompt != "stock"):
            return self.terms[name] == (task.limit, None, task.prompt)
        if name in ZERO_SHOT:
            return self.terms[name] == (task.limit, None, None)
        if task.seqlen is None and self.context is None:
            return False
        seqlen = task.seqlen or default_seqlen(None, int(self.context or 0), "task.seqlen")
        return self.terms[name] == (task.limit, seqlen, task.bos)


def bos_of(metrics: Mapping[str, Any]) -> str | None:
    """Return ``task.bos`` of a task's metrics: None for a zero-shot task.

    Version 0.1 had no such key, and evaluated texts as ``stream``.
    """
    bos: str | None = metrics.get("bos", "stream" if metrics["kind"] == "perplexity" else None)
    return bos


def summary_path(record: Path) -> Path:
    return record.parent / STATE_FOLDER / f"{record.stem}.summary"


def read_summary(record: Path) -> Summary | None:
    """Read the summary of the record at `record`, from the record itself if needed.

    None: there is no record, or it is damaged.
    """
    try:
        size = record.stat().st_size
    except FileNotFoundError:
        return None
    try:
        content = json.loads(unsealed(read_text(summary_path(record))))
        if content.pop("size") == size:
            pairs = content.pop("terms")
            terms = {name: (limit, seqlen, bos) for name, (limit, seqlen, bos) in pairs.items()}
            return Summary(terms, **content)
    except (OSError, *DAMAGE):
        pass  # no valid summary: read the record instead
    try:
        fields = json.loads(unsealed(record.read_text(encoding="utf-8")))
        samples = fields.get("samples", ())
        return Summary.of(fields["metrics"], fields["context"], fields["costs"], samples)
    except DAMAGE:
        return None
