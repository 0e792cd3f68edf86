"""Overrides of a run that takes a moment."""

from __future__ import annotations

SMALL = [
    "calibration.windows=2",
    "calibration.search_windows=1",
    "calibration.seqlen=32",
    "task.seqlen=32",
    "topup.block_candidates=[0.05,0.15]",
    "topup.row_candidates=[0.0]",
]
