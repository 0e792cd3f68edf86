"""Progress as bars and as lines."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from neuroal.tracking import LineProgress, QuietProgress, TerminalProgress, progress_for


def lines_of_bar(width: int, name: str, total: int, unit: str, **info: object) -> list[str]:
    """Return the lines that a terminal shows after the first of `total` units."""
    output = io.StringIO()
    progress = TerminalProgress(Console(file=output, width=width, force_terminal=True))
    with progress.stage(name, total, unit) as step:
        step.advance(1, **info)
    lines = output.getvalue().replace("\r", "\n").splitlines()
    plain = Console(file=io.StringIO(), width=width)
    return [plain.render_str(line).plain for line in lines if unit in line]


@pytest.mark.parametrize("width", [80, 100])
def test_counter_and_time_left_fit_into_80_columns(width: int) -> None:
    info = {"candidate": 0.123456, "criterion": 0.987654321, "more": "text " * 9}
    lines = lines_of_bar(width, "search blocks", 100_000, "candidate", **info)
    assert lines
    assert all("/100000 candidate" in line and " left" in line for line in lines)
    assert any("1/100000 candidate" in line and "0.12" in line for line in lines)
    assert not any("more text text text text text" in line for line in lines)


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_lines_appear_at_intervals_with_the_time_left() -> None:
    clock, lines, printed = Clock(), list[str](), threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        printed.set()

    progress = LineProgress(0.02, say, clock)
    with progress.stage("prune", 4, "block") as step:
        assert not printed.wait(0.1)  # no time has passed
        step.advance(1, error=0.25)
        clock.time = 30.0
        assert printed.wait(10)
        printed.clear()
        assert not printed.wait(0.1)  # the interval has not passed again
    assert lines == ["prune: 1/4 block, 0:30 passed, 1:30 left, error 0.25"]


def test_intervals_grow_so_that_the_log_of_a_day_is_short() -> None:
    clock = Clock()
    progress, day, lines = LineProgress(10.0, now=clock), 86_400.0, 0
    while progress._last < day:
        progress._last, lines = progress._due(), lines + 1
    assert 100 < lines < 400


def test_a_long_unit_is_reported_before_it_is_done() -> None:
    printed = threading.Event()
    lines: list[str] = []
    progress = LineProgress(0.01, lambda line: (lines.append(line), printed.set())[0])
    with progress.stage("load model", 1, "step"):
        assert printed.wait(10)
    assert lines[0].startswith("load model: 0/1 step, 0:00 passed")


def test_auto_is_lines_without_a_terminal() -> None:
    kinds = {mode: type(progress_for(mode)) for mode in ("auto", "bar", "lines", "none")}
    assert kinds == {
        "auto": LineProgress,
        "bar": TerminalProgress,
        "lines": LineProgress,
        "none": QuietProgress,
    }
