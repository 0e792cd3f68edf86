"""Messages of all console scripts: lines on stderr, JSON and text on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from neuroal.config.validation import message_of
from neuroal.errors import UserError, one_line
from neuroal.files.atomic import finite

LOGGER = logging.getLogger("neuroal")


class _Lines(logging.Handler):
    """Prints log messages as the lines ``neuroal: MESSAGE`` on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"neuroal: {one_line(record.getMessage())}", file=sys.stderr)


@contextmanager
def messages_as_lines(level: int = logging.INFO) -> Iterator[None]:
    """Print the log messages and warnings of this package as lines on stderr, inside the context.

    Prints messages of at least `level`; `set_level` changes it. Hydra's own handler would print
    them on stdout, with a time stamp.
    """
    handler, show_others = _Lines(level), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning:
            LOGGER.warning("%s", message)
        else:
            show_others(message, category, *where, **more)

    before = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)  # log files have all messages
    LOGGER.propagate, warnings.showwarning = False, show
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before[0])
        LOGGER.propagate, warnings.showwarning = before[1], show_others


def level_of(flags: argparse.Namespace) -> int:
    """Return the least level of messages by the flags ``--quiet`` and ``--verbose``."""
    if flags.quiet:
        return logging.WARNING
    return logging.DEBUG if flags.verbose else logging.INFO


def set_level(level: int) -> None:
    """Let `messages_as_lines` print messages of at least `level`."""
    for handler in LOGGER.handlers:
        if isinstance(handler, _Lines):
            handler.setLevel(level)


@contextmanager
def without_notes_of_hydra(active: bool = True) -> Iterator[None]:
    """Let launchers print no notes on stdout, inside the context and if `active`."""
    loggers = [logging.getLogger(name) for name in ("hydra", "hydra_plugins")]
    before = [logger.level for logger in loggers]
    for logger in loggers if active else ():
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def print_error(error: Exception, where: str = "", with_traceback: bool = False) -> None:
    """Print an error that the user can fix as one line."""
    if with_traceback and error.__cause__ is not None:
        traceback.print_exception(error)
    text = str(error) if isinstance(error, UserError) else message_of(error)
    print(f"neuroal: {one_line(where + text)}", file=sys.stderr)


def print_json(content: Any) -> None:
    """Print `content` as one line of JSON on stdout; null replaces infinity and NaN."""
    print(json.dumps(finite(content), ensure_ascii=False, default=str), flush=True)
