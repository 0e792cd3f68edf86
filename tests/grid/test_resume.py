"""A run that is killed at any point and resumed leaves the files of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import neuroal.run
from neuroal.cli.compose import composed
from neuroal.config.schema import RunConfig
from neuroal.tracking import QuietProgress
from tests.grid.small import leftovers, results

CONTEXT = multiprocessing.get_context("fork")  # processes inherit the imported torch
RUN = [
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=16",
    "task.seqlen=16",
    "task.limit=2",
    "task.names=[builtin]",
    "topup.block_candidates=[0.1,0.2]",
    "topup.row_candidates=[0.0]",
]
WRITES = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "tempfile.mkstemp")
"""Audit events of file operations."""
METHODS = ("wanda", "sparsegpt")
"""A pruner that leaves the kept weights unchanged, and one that updates them."""


def config_of(out: Path, pruner: str, *more: str) -> RunConfig:
    return composed([*RUN, f"pruner={pruner}", f"out={out}", *more])


def in_a_process(work: Callable[[], None]) -> int | None:
    def begin() -> None:
        torch.set_num_threads(1)  # create the thread pool before threads of a loader race for it
        work()

    process = CONTEXT.Process(target=begin)
    process.start()
    process.join(120)
    return process.exitcode


def operations(config: RunConfig, kill_at: int | None, counted: Path | None = None) -> None:
    """Execute the run; kill this process at the `kill_at`-th file operation in its folder."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in WRITES and any(config.out in str(value) for value in arguments[:2]):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    neuroal.run.run(config, QuietProgress())
    if counted is not None:
        counted.write_text(str(seen))


@pytest.fixture(scope="module", params=METHODS)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Mapping[str, Any], int]:
    """Return pruner, results and number of file operations of a run that is not killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = config_of(folder / "runs", request.param)
    neuroal.run.run(config_of(folder / "warm", request.param), QuietProgress())  # caches the tokens
    assert in_a_process(lambda: operations(config, None, folder / "count")) == 0
    return request.param, results(folder / "runs"), int((folder / "count").read_text())


def check_killed_at(
    point: int, undisturbed: tuple[str, Mapping[str, Any], int], tmp_path: Path
) -> None:
    pruner, expected, _ = undisturbed
    out = tmp_path / f"killed-at-{point}"
    config = config_of(out, pruner)
    code = in_a_process(lambda: operations(config, point))
    assert code == -signal.SIGKILL, f"operation {point}"
    for path in out.glob("*.json"):
        results(out)[path.stem]  # complete, or absent
    has_plan = any((out / "state").glob("*.plan")) or any(out.glob("*.json"))

    def resume() -> None:
        if has_plan:
            neuroal.run.allocate = _never  # a finished stage is not repeated
        neuroal.run.run(config, QuietProgress())

    assert in_a_process(resume) == 0, f"operation {point}"
    assert results(out) == expected, f"operation {point}"
    assert not leftovers(out), f"operation {point}"


def _never(*_: Any) -> Any:
    raise AssertionError("the plan was computed again")


def test_a_run_resumes_after_a_kill_at_random_points(
    undisturbed: tuple[str, Mapping[str, Any], int], tmp_path: Path
) -> None:
    last = undisturbed[2]
    for point in sorted(random.Random(last).sample(range(1, last + 1), 4)):
        check_killed_at(point, undisturbed, tmp_path)


@pytest.mark.slow
def test_a_run_resumes_after_a_kill_at_every_point(
    undisturbed: tuple[str, Mapping[str, Any], int], tmp_path: Path
) -> None:
    for point in range(1, undisturbed[2] + 1):
        check_killed_at(point, undisturbed, tmp_path)


def test_a_later_run_adds_only_missing_tasks_to_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more.txt").write_text("Other words.\n" * 400)
    first, path = neuroal.run.run(config_of(tmp_path, "wanda", "task.names=[]"), QuietProgress())
    assert not first.metrics
    monkeypatch.setattr(neuroal.run, "allocate", _never)
    second, same = neuroal.run.run(config_of(tmp_path, "wanda"), QuietProgress())
    assert same == path
    assert list(second.metrics) == ["builtin"]
    assert second.masks == first.masks
    monkeypatch.setattr(neuroal.run, "load_model", _never)
    third, _ = neuroal.run.run(config_of(tmp_path, "wanda"), QuietProgress())
    assert third == second  # nothing was missing, so nothing was loaded


def test_a_task_with_another_limit_is_evaluated_again(tmp_path: Path) -> None:
    first, _ = neuroal.run.run(config_of(tmp_path, "wanda"), QuietProgress())
    other, _ = neuroal.run.run(config_of(tmp_path, "wanda", "task.limit=3"), QuietProgress())
    assert other.identity == first.identity
    assert first.metrics["builtin"]["limit"] == 2
    assert other.metrics["builtin"]["limit"] == 3


def test_masks_are_saved_only_on_request(tmp_path: Path) -> None:
    record, _ = neuroal.run.run(config_of(tmp_path, "wanda"), QuietProgress())
    masks = tmp_path / f"{record.identity}.masks.npz"
    assert not masks.exists()
    neuroal.run.run(config_of(tmp_path, "wanda", "save.masks=true"), QuietProgress())
    assert masks.exists()
    assert not leftovers(tmp_path)
