"""Progress of a run on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBar


class Step(Protocol):
    """A stage in progress."""

    def advance(self, count: int = 1, **info: object) -> None:
        """Report `count` more completed units, and show `info` beside the bar."""


class Progress(Protocol):
    """Receives progress updates for every stage of a run."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]:
        """Return a context manager for a stage of `total` units."""


class _Silent:
    def advance(self, count: int = 1, **info: object) -> None:
        return


class QuietProgress:
    """Shows nothing."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]:
        return nullcontext(_Silent())


class _Bar:
    def __init__(self, bar: RichBar, name: str, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=total, info="")

    def advance(self, count: int = 1, **info: object) -> None:
        shown = " ".join(f"{key} {_short(value)}" for key, value in info.items())
        self._bar.update(self._task, advance=count, info=shown)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class TerminalProgress:
    """Shows a bar for each stage on stderr: units done, time passed, time left, last figure."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        columns = (
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[info]}"),
        )
        with RichBar(*columns, console=self._console) as bar:
            yield _Bar(bar, name, total)


def progress_for_terminal() -> Progress:
    """Return `TerminalProgress` if stderr is a terminal, else `QuietProgress`."""
    return TerminalProgress() if sys.stderr.isatty() else QuietProgress()


def progress_of(progress: Progress | bool | None) -> Progress:
    """Return the receiver that a caller names: True shows bars, False and None show nothing."""
    if progress is None or isinstance(progress, bool):
        return TerminalProgress() if progress else QuietProgress()
    return progress
