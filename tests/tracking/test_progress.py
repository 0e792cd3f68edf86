"""Progress on a terminal and in a log, log files, and an interruption without partial files."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroal.cli import main as cli
from neuroal.data.text import Windows
from neuroal.evaluation.perplexity import perplexity
from neuroal.evaluation.tasks import PerplexityTask, counted
from neuroal.tracking.log_file import log_file
from neuroal.tracking.progress import Portion
from tests.small_models import random_tokens, tiny_llama

SMALL = [
    "model=zoo/phi",
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=64",
    "task.seqlen=64",
    "task.limit=2",
]


class RecordingProgress:
    """Keeps the counts of every step."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[RecordingProgress]:
        yield self

    def advance(self, count: int = 1, **info: object) -> None:
        self.counts.append(count)


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


def test_a_short_run_prints_nothing_but_its_result_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, "topup=uniform", "pruner=magnitude", f"out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["neuroal", *overrides])
    monkeypatch.setattr("neuroal.tracking.terminal.INTERVAL", 600.0)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capfd.readouterr().err == ""
    (record,) = tmp_path.glob("*.json")
    log = record.with_suffix(".log").read_text()
    for stage in ("load model", "evaluate dense", "prune", "evaluate pruned"):
        assert f"DEBUG {stage}: done in" in log
    assert f"record {record}" in log


def test_a_failed_run_leaves_its_traceback_in_the_log_file(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with pytest.raises(RuntimeError), log_file(path):
        raise RuntimeError("no memory")
    assert "RuntimeError: no memory" in path.read_text()
    assert "Traceback" in path.read_text()
    assert not logging.getLogger("neuroal").handlers


def test_perplexity_counts_windows_and_repeats_none_after_running_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, progress, attempts = tiny_llama(), RecordingProgress(), list[int]()
    original = decoder.model.forward

    def forward(tokens: torch.Tensor, **settings: Any) -> Any:
        attempts.append(len(tokens))
        if len(attempts) == 2:  # in the middle of the first attempt
            raise torch.OutOfMemoryError
        return original(tokens, **settings)

    monkeypatch.setattr(decoder.model, "forward", forward)
    with progress.stage("evaluate", 8, "window") as step, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        perplexity(decoder.model, random_tokens(8, 16), 4, portion := Portion(step, 8))
        portion.finish(builtin=1.5)
    assert attempts == [4, 4, 2, 2, 2, 2]
    assert progress.counts == [4, 2, 2, 0]


def test_tasks_of_one_kind_are_counted_in_their_units() -> None:
    windows = Windows(random_tokens(5, 16), "text")
    texts = [PerplexityTask(name, windows, None) for name in ("ptb", "c4")]
    assert counted(texts) == (10, "window")


@pytest.mark.parametrize("command", ["main", "evaluate", "grid", "data", "tables"])
def test_bars_of_other_packages_are_disabled(command: str) -> None:
    code = f"import neuroal.cli.{command}, tqdm; print(tqdm.tqdm([]).disable)"
    clean = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    output = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert output.stdout.strip() == "True", output.stderr
