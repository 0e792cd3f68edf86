"""What a person sees while a run works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


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
