"""Write the messages of a run to a file beside its record."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
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
def log_file(path: Path) -> Iterator[None]:
    """Append the messages of this package to `path`, and the traceback of an error, inside.

    The level of the logger ``neuroal`` is the caller's choice; the command line sets it to DEBUG,
    at which stages report their begin and end.
    """
    handler = _File(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    try:
        yield
    except BaseException as error:
        cause = (type(error), error, error.__traceback__)
        record = LOGGER.makeRecord(
            LOGGER.name, logging.ERROR, __file__, 0, "the run ended: %r", (error,), cause
        )
        handler.handle(record)  # to the file alone: the caller prints the error
        raise
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


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
