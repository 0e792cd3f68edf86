"""Tracker that writes a CSV file beside the record."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from neuroal.records.schema import Record
from neuroal.tracking.base import Tracker
from neuroal.tracking.contents import figures


class CsvTracker(Tracker):
    """Writes OUT/IDENTITY.csv with the columns ``figure``, ``x`` and ``value``, line by line.

    ``x`` is the λ of a candidate or the number of completed units; final figures have none. A
    resumed run appends; ``force=true`` starts the file again.
    """

    name = "csv"

    def _open(self) -> None:
        path = Path(self.config.out) / f"{self.identity}.csv"
        is_new = self.config.force or not path.exists()
        mode = "w" if is_new else "a"
        self._file = path.open(mode, encoding="utf-8", newline="", buffering=1)
        self._rows = csv.writer(self._file)
        if is_new:
            self._rows.writerow(("figure", "x", "value"))

    def _log(self, values: Mapping[str, float], x_axis: str) -> None:
        axes = {x_axis, f"{x_axis.rpartition('/')[0]}/done"}
        self._rows.writerows((k, values[x_axis], v) for k, v in values.items() if k not in axes)

    def _record(self, record: Record, path: Path) -> None:
        self._rows.writerows((name, "", value) for name, value in figures(record))

    def _close(self, failed: bool) -> None:
        self._file.close()
