"""Progress of a run: on the terminal, and in Weights & Biases."""

from neuroal.tracking.progress import Progress, QuietProgress, Step
from neuroal.tracking.terminal import (
    LineProgress,
    TerminalProgress,
    progress_for,
    progress_of,
)
from neuroal.tracking.tracker import TrackedProgress, tracker_for

__all__ = [
    "LineProgress",
    "Progress",
    "QuietProgress",
    "Step",
    "TerminalProgress",
    "TrackedProgress",
    "progress_for",
    "progress_of",
    "tracker_for",
]
