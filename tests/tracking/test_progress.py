"""A terminal shows progress, a log does not, and an interruption leaves no partial file."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuroal.cli import main as cli

SMALL = [
    "model=zoo/phi",
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=64",
    "task.seqlen=64",
    "task.limit=2",
]


def read_until(terminal: int, text: str, seconds: float = 60) -> str:
    """Return the output of a pseudo-terminal up to `text`."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def restore_interrupts() -> None:
    """Restore SIGINT, which processes in the background of a shell ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_terminal_shows_progress_and_ctrl_c_leaves_no_partial_file(
    tmp_path: Path,
) -> None:
    terminal, far_end = pty.openpty()
    command = [sys.executable, "-m", "neuroal", *SMALL, f"out={tmp_path}", "save.masks=true"]
    # Enough work that the search is still running when the signal arrives on a busy machine.
    command += ["calibration.windows=32", "calibration.search_windows=32", "calibration.seqlen=256"]
    wide = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=far_end,
        env=wide,
        preexec_fn=restore_interrupts,
    ) as process:
        os.close(far_end)
        shown = read_until(terminal, "criterion")
        assert "search blocks" in shown
        assert "candidate" in shown
        assert "left" in shown
        process.send_signal(signal.SIGINT)
        read_until(terminal, "interrupted")
        assert process.wait(timeout=30) == 130
    os.close(terminal)
    assert not list(tmp_path.glob("*.json"))  # no record
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.startswith(".")]  # no temporary file
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())


def test_a_log_shows_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, "topup=uniform", "pruner=magnitude", f"out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["neuroal", *overrides])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capfd.readouterr().err == ""
    assert len(list(tmp_path.glob("*.json"))) == 1
