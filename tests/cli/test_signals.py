"""A terminated command prints one line, and leaves by an exception, so that it cleans up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from neuroal.cli.application import exit_with
from neuroal.files.lock import is_held, leased


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_command_releases_its_lock(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with leased(tmp_path / "x.lock"):
            os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)  # also under nohup
    with pytest.raises(SystemExit) as ended:
        exit_with(work)
    assert ended.value.code == 128 + number
    assert not is_held(tmp_path / "x.lock")
    assert capsys.readouterr().err == (
        f"neuroal: stopped by {number.name}; finished records are kept\n"
    )
    assert signal.signal(number, before) == signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended:
            exit_with(lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert not ended.value.code
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise OSError(28, os.strerror(28), "runs/x.json")

    with pytest.raises(SystemExit) as ended:
        exit_with(work)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "neuroal: runs/x.json: no space left on device; free some space and start again; "
        "finished stages are kept\n"
    )
