"""A run does not wait for the dense model's figures while another process computes them."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuroal.cli.compose import composed
from neuroal.files.lock import leased
from neuroal.records.dense_cache import FOLDER
from neuroal.records.schema import Record
from neuroal.records.summary import STATE_FOLDER
from neuroal.run import run

SMALL = ["pruner=magnitude", "topup=uniform", "task.seqlen=64", "task.limit=8"]


def record_in(out: Path) -> Record:
    return run(composed([*SMALL, f"out={out}"]))[0]


@contextmanager
def another_process(
    lock: Path, until: Callable[[], bool], end: Callable[[], object]
) -> Iterator[None]:
    """Hold `lock` until a condition is true, then call `end` and release it."""
    locked = threading.Event()

    def work() -> None:
        with leased(lock) as mine:
            assert mine
            locked.set()
            deadline = time.monotonic() + 60
            while not until() and time.monotonic() < deadline:
                time.sleep(0.01)
            end()

    thread = threading.Thread(target=work)
    thread.start()
    assert locked.wait(10)
    yield
    thread.join()


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_prunes_while_another_process_evaluates_the_dense_model(
    dies: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = record_in(tmp_path / "alone")
    (figures,) = (tmp_path / "alone" / FOLDER).glob("builtin-*.json")
    out = tmp_path / "shared"
    copy = out / FOLDER / figures.name

    def pruned() -> bool:
        return any((out / STATE_FOLDER).glob("*.masks.npz"))

    def end() -> None:
        assert pruned()
        assert not copy.exists()
        if not dies:
            shutil.copy(figures, copy)

    caplog.set_level(logging.INFO, "neuroal")
    with another_process(copy.with_suffix(".lock"), pruned, end):
        shared = record_in(out)
    assert shared.metrics == alone.metrics
    assert shared.masks == alone.masks
    assert copy.exists()
    assert ("this process takes over" in caplog.text) is dies
