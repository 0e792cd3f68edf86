"""Progress of a run: on the terminal, and in Weights & Biases."""

from neuroal.tracking.progress import (
    Progress,
    QuietProgress,
    Step,
    TerminalProgress,
    progress_for_terminal,
    progress_of,
)
from neuroal.tracking.tracker import TrackedProgress, tracker_for

__all__ = [
    "Progress",
    "QuietProgress",
    "Step",
    "TerminalProgress",
    "TrackedProgress",
    "progress_for_terminal",
    "progress_of",
    "tracker_for",
]
