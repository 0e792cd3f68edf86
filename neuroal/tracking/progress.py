"""What a person sees while a run works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
    """One stage under way."""

    def advance(self, count: int = 1, **info: object) -> None:
        """`count` more units are done; `info` is shown beside them."""


class Progress(Protocol):
    """Told of every stage of a run."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]:
        """Context manager of a stage of `total` units."""


class _Silent:
    def advance(self, count: int = 1, **info: object) -> None:
        return


class QuietProgress:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        yield _Silent()


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
    """A bar for each stage on stderr: done so far, time passed, time left, the last figure."""

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
    """Bars where a person looks on, nothing where stderr is no terminal."""
    return TerminalProgress() if sys.stderr.isatty() else QuietProgress()
