"""What all trackers share: they start late, and their errors never cost a result."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from neuroal.errors import first_line

if TYPE_CHECKING:
    from neuroal.config.schema import RunConfig
    from neuroal.records.schema import Record


class Tracker(ABC):
    """Reports one run to a service or a file, in addition to its record.

    It opens with the first stage, so an invalid run or a run with nothing left to do leaves no
    trace. After an error, the tracker prints one warning on stderr and stops; the record does not
    depend on it.

    Args:
        config: configuration of the run.
        identity: its identity; a resumed run continues what it reported before.
    """

    name: ClassVar[str]
    """Value of ``logger``."""
    package: ClassVar[str | None] = None
    """Package that an extra called `name` installs; None: it is always there."""

    def __init__(self, config: RunConfig, identity: str) -> None:
        self.config, self.identity = config, identity
        self._is_open = self._is_dead = False

    def begin(self) -> None:
        """Start tracking; called at every stage."""
        self._contained(lambda: None)

    def log(self, values: dict[str, float], x_axis: str) -> None:
        """Report the figures of one step of a stage; `x_axis` names the one that is the x axis."""
        self._contained(lambda: self._log(values, x_axis))

    def record(self, record: Record, path: Path) -> None:
        """Report the record of the finished run, stored at `path`."""
        if self._is_open:
            self._contained(lambda: self._record(record, path))

    def close(self, failed: bool) -> None:
        """End tracking; `failed`: whether the run raised an error."""
        if self._is_open:
            self._contained(lambda: self._close(failed))

    @abstractmethod
    def _open(self) -> None:
        """Start the run."""

    @abstractmethod
    def _log(self, values: Mapping[str, float], x_axis: str) -> None: ...

    @abstractmethod
    def _record(self, record: Record, path: Path) -> None: ...

    @abstractmethod
    def _close(self, failed: bool) -> None: ...

    def _contained(self, action: Callable[[], None]) -> None:
        """Do `action` on an open run; warn about an error once and stop tracking."""
        if self._is_dead:
            return
        try:
            if not self._is_open:
                self._open()
                self._is_open = True
            action()
        except Exception as error:  # services raise many types; none may end the run
            self._is_dead = True
            self.warn(f"{first_line(error)}; the record does not depend on it")

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        print(f"neuroal: logger={self.name}: {text}", file=sys.stderr)
