"""Exit cleanly on signals, so that locks are released and temporary folders are deleted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exiting_on_signals() -> Iterator[None]:
    """Exit by `SystemExit` with code 128 + N on the signals `SIGNALS`, inside the context.

    A signal that is ignored, as under nohup, or that the caller handles itself is left alone.
    """
    own = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in own:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    print(f"neuroal: stopped by {name}; finished records are kept", file=sys.stderr, flush=True)
    sys.exit(128 + number)
