"""Call a console script in this process, and judge how it ends."""

from __future__ import annotations

import contextlib
import io
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
    """How a call ended: its exit code and what it printed; `fault`: an exception that escaped."""

    code: int
    stdout: str
    stderr: str
    seconds: float
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
        if not lines or not lines[-1].startswith("neuroal: "):
            return f"exit code {self.code}, and no error line comes last"
        if self.code == 2 and len([line for line in lines if not _is_note(line)]) != 1:
            return "there is not exactly one error line"
        return None


def _is_note(line: str) -> bool:
    """Return whether `line` is a warning or a note of another package, before the error line."""
    return not line.startswith("neuroal: ")


def call(
    main: Callable[[], Any], arguments: Sequence[str], folder: Path, seconds: int = SECONDS
) -> Outcome:
    """Call the console script `main` with `arguments` in the current folder `folder`."""
    out, err, code, fault = io.StringIO(), io.StringIO(), 0, None
    begin = time.monotonic()
    with _restored(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["neuroal", *arguments]
        try:
            with _limited(seconds):
                main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except (Exception, Hang) as error:
            fault = error
    taken = time.monotonic() - begin
    return Outcome(code, out.getvalue(), err.getvalue(), taken, fault)


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
