"""Call a console script in this process, and judge how it ends."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

LONGEST_LINE = 1500
"""Maximum length of an error line, in characters."""
SECONDS = 60
"""Time after which a call counts as a hang."""


class Hang(BaseException):
    """A call that does not end."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: exit code.
        stdout: what it printed.
        stderr: what it printed there.
        seconds: how long it took.
        logged: number of lines on stderr that are warnings and notes.
        fault: an exception that escaped, or a hang.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    logged: int = 0
    fault: BaseException | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the way the call ended, or None."""
        if self.fault is not None:
            return f"{type(self.fault).__name__} escaped: {self.fault}"
        if "Traceback" in self.stderr + self.stdout:
            return "a traceback is printed"
        lines = self.stderr.splitlines()
        if max(map(len, lines), default=0) > LONGEST_LINE:
            return "a line is too long"
        if self.code == 0:
            return None
        if len(lines) == 1 + self.logged and lines[-1].startswith(("neuroal: ", "package ")):
            return None
        return f"exit code {self.code} after {len(lines)} lines, {self.logged} of them warnings"


class _Counter(logging.Handler):
    """Counts the messages that are printed."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def call(
    main: Callable[[], Any], arguments: Sequence[str], folder: Path, seconds: int = SECONDS
) -> Outcome:
    """Call the console script `main` with `arguments` in the current folder `folder`."""
    out, err, code, fault = io.StringIO(), io.StringIO(), 0, None
    begin, counter = time.monotonic(), _Counter()
    logging.getLogger("neuroal").addHandler(counter)
    with _restored(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["neuroal", *arguments]
        try:
            with _limited(seconds):
                main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except (Exception, Hang) as error:
            fault = error
    logging.getLogger("neuroal").removeHandler(counter)
    taken = time.monotonic() - begin
    return Outcome(code, out.getvalue(), err.getvalue(), taken, counter.count, fault)


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise `Hang` inside the context after some seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _restored(folder: Path) -> Iterator[None]:
    """Restore what a console script changes in its process, and start it in `folder`."""
    argv, path, environment, before = sys.argv, [*sys.path], dict(os.environ), os.getcwd()
    hydra_config = HydraConfig.instance()
    job = hydra_config.cfg
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        os.chdir(before)
        sys.argv, sys.path[:] = argv, path
        os.environ.clear()
        os.environ.update(environment)
        GlobalHydra.instance().clear()
        hydra_config.cfg = job
