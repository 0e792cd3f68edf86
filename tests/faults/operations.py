"""Call a function at the n-th file operation of this process in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

WRITES = ("os.rename", "os.link", "os.mkdir", "tempfile.mkstemp", "tempfile.mkdtemp")
"""Audit events of operations that change a folder, besides opening a file for writing."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Watch:
    """Audit hook that calls `action` with the number and the path of every operation."""

    def __init__(self) -> None:
        self.action: Callable[[int, str], None] | None = None
        self._folder, self._count = "", 0

    def start(self, folder: Path, action: Callable[[int, str], None]) -> None:
        self._folder, self._count, self.action = str(folder), 0, action

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.action is None or not self._is_write(event, arguments):
            return
        path = next((str(a) for a in arguments[:2] if self._folder in str(a)), "")
        if path:
            self._count += 1
            action, self.action = self.action, None  # what it does is not watched
            try:
                action(self._count, path)
            finally:
                self.action = action

    def _is_write(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event != "open":
            return event in WRITES
        return bool(arguments[2] & WRITING) if isinstance(arguments[2], int) else False


@cache
def _watch() -> Watch:
    watch = Watch()
    sys.addaudithook(watch)  # cannot be removed
    return watch


@contextmanager
def at_operation(
    number: int, folder: Path, act: Callable[[str], None], onward: bool = False
) -> Iterator[None]:
    """Call `act` with the path of operation `number` in `folder`; `onward`: and all later."""

    def action(count: int, path: str) -> None:
        if count == number or (onward and count > number):
            act(path)

    _watch().start(folder, action)
    try:
        yield
    finally:
        _watch().action = None


def count_operations(folder: Path, work: Callable[[], object]) -> int:
    """Return the number of file operations of `work` in `folder`."""
    counts = [0]
    _watch().start(folder, lambda count, path: counts.append(count))
    try:
        work()
    finally:
        _watch().action = None
    return counts[-1]
