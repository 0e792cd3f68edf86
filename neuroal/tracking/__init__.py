"""What is told of a run while it works: a person at the terminal, and Weights & Biases."""

from neuroal.tracking.progress import (
    Progress,
    QuietProgress,
    Step,
    TerminalProgress,
    progress_for_terminal,
)
from neuroal.tracking.tracker import NoTracker, TrackedProgress, Tracker, tracker_for

__all__ = [
    "NoTracker",
    "Progress",
    "QuietProgress",
    "Step",
    "TerminalProgress",
    "TrackedProgress",
    "Tracker",
    "progress_for_terminal",
    "tracker_for",
]
