"""Write the messages of a run to a file beside its record."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from neuroal.tracking.progress import Progress, Step

LOGGER = logging.getLogger("neuroal")
log = logging.getLogger(__name__)


class _File(logging.FileHandler):
    """Ends with one line on stderr if it cannot be written; the run continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (name of `logging`)
        self.setLevel(logging.CRITICAL + 1)
        print(f"neuroal: {self.baseFilename}: cannot be written", file=sys.stderr)


@contextmanager
def log_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Append the messages of this package to `path`, and the traceback of an error, inside.

    Yields a function that writes a line to the file alone.

    The level of the logger ``neuroal`` is the caller's choice; the command line sets it to DEBUG,
    at which stages report their begin and end.
    """
    handler = _File(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    try:
        yield lambda line: handler.emit(_record(logging.INFO, line))
    except BaseException as error:
        handler.handle(_record(logging.ERROR, f"the run ended: {error!r}", error))
        raise  # the caller prints the error
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


def _record(level: int, text: str, error: BaseException | None = None) -> logging.LogRecord:
    cause = None if error is None else (type(error), error, error.__traceback__)
    return LOGGER.makeRecord(LOGGER.name, level, __file__, 0, "%s", (text,), cause)


class LoggedProgress:
    """Shows progress on `progress`, and logs begin and end of each stage at level DEBUG."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        log.debug("%s: begins, %d %s", name, total, unit)
        begin = time.perf_counter()
        with self._progress.stage(name, total, unit) as step:
            yield step
        log.debug("%s: done in %.1f s", name, time.perf_counter() - begin)
