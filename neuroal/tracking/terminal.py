"""Show the progress of a run: bars on a terminal, lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichBar
from rich.text import Text

from neuroal.tracking.progress import Progress, QuietProgress, Step

WIDE = 100
"""Width of a terminal, in characters, from which a bar is long and shows the time passed."""
INTERVAL = 10.0
"""Least number of seconds between two lines."""
INTERVAL_SHARE = 0.02
"""Least time between two lines as a share of the time passed, so that long runs have short logs."""


def progress_for(mode: str) -> Progress:
    """Return what ``progress=MODE`` names; ``auto``: a bar on a terminal, else lines."""
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "lines"
    if mode == "bar":
        return TerminalProgress()
    return LineProgress() if mode == "lines" else QuietProgress()


def progress_of(progress: Progress | bool | None) -> Progress:
    """Return the receiver that a caller names: True shows bars, False and None show nothing."""
    if progress is None or isinstance(progress, bool):
        return TerminalProgress() if progress else QuietProgress()
    return progress


def shown(info: dict[str, object]) -> str:
    """Return the figures of a step as text."""
    return " ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in info.items()
    )


def clock(seconds: float) -> str:
    """Return a duration as ``M:SS`` or ``H:MM:SS``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Counter(ProgressColumn):
    """Shows units done, their number, and the time left, which is never cut off."""

    def __init__(self, unit: str, wide: bool) -> None:
        super().__init__()
        self._unit, self._wide = unit, wide

    def render(self, task: Task) -> Text:
        passed = f"  {clock(task.elapsed or 0)}" if self._wide else ""
        left = task.time_remaining
        remaining = "–:––" if left is None else clock(left)
        counter = f"{int(task.completed)}/{int(task.total or 0)} {self._unit}"
        return Text(f"{counter}{passed}  {remaining} left", no_wrap=True)


class _Info(ProgressColumn):
    """Shows the last figures, cut off at the edge of the terminal."""

    def __init__(self, room: Callable[[Task], int]) -> None:
        super().__init__()
        self._room = room

    def render(self, task: Task) -> Text:
        text, room = str(task.fields["info"]), self._room(task)
        return Text(text if len(text) <= room else f"{text[: room - 1]}…", no_wrap=True)


class _Bar:
    def __init__(self, bar: RichBar, name: str, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=total, info="")

    def advance(self, count: int = 1, **info: object) -> None:
        self._bar.update(self._task, advance=count)
        if info:
            self._bar.update(self._task, info=shown(info))


class TerminalProgress:
    """Shows a bar for each stage on stderr: units done, time left and the last figures.

    In a wide terminal, it also shows the time passed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        wide = self._console.width >= WIDE
        counter, length = _Counter(unit, wide), 24 if wide else 10

        def room(task: Task) -> int:
            used = max(15, len(name)) + length + len(counter.render(task)) + 4
            return max(0, self._console.width - used)

        columns = (
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=length),
            counter,
            _Info(room),
        )
        with RichBar(*columns, console=self._console) as bar:
            yield _Bar(bar, name, total)


class LineProgress:
    """Prints a line on stderr now and then: stage, units done, time left, last figures.

    The first line appears after `interval` seconds, so a short run prints none. A thread prints
    the lines, so that stages with long units appear as well.

    Args:
        interval: least number of seconds between two lines, which grows with the time passed;
            None: `INTERVAL`.
        say: receives the lines; None: they are printed.
        now: returns the time in seconds.
    """

    def __init__(
        self,
        interval: float | None = None,
        say: Callable[[str], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = INTERVAL if interval is None else interval
        self._say, self._now = say or _print, now
        self._begin = self._last = now()

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        step, ended = _Lines(name, total, unit, self._now), threading.Event()
        thread = threading.Thread(target=self._watch, args=(step, ended), daemon=True)
        thread.start()
        try:
            yield step
        finally:
            ended.set()
            thread.join()

    def _watch(self, step: _Lines, ended: threading.Event) -> None:
        """Print the lines of one stage until it has `ended`."""
        while not ended.wait(max(0.0, self._due() - self._now())):
            if self._now() >= self._due():
                self._last = self._now()
                self._say(step.line())

    def _due(self) -> float:
        """Return the time of the next line."""
        return self._last + max(self._interval, INTERVAL_SHARE * (self._last - self._begin))


class _Lines:
    """A stage whose state is read as a line."""

    def __init__(self, name: str, total: int, unit: str, now: Callable[[], float]) -> None:
        self._name, self._total, self._unit, self._now = name, total, unit, now
        self._begin, self._done, self._info = now(), 0, ""

    def advance(self, count: int = 1, **info: object) -> None:
        self._done += count
        self._info = shown(info) if info else self._info

    def line(self) -> str:
        """Return stage, units done, time passed, time left and the last figures."""
        passed = self._now() - self._begin
        parts = [
            f"{self._name}: {self._done}/{self._total} {self._unit}",
            f"{clock(passed)} passed",
        ]
        if self._done:
            left = passed / self._done * (self._total - self._done)
            parts.append(f"{clock(left)} left")
        return ", ".join([*parts, *([self._info] if self._info else [])])


def _print(line: str) -> None:
    print(f"neuroal: {line}", file=sys.stderr, flush=True)
