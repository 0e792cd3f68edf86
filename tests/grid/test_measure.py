"""A plan that measures takes every part of a run into account, and later plans know its rates."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from neuroal.cli.grid import grid_command
from neuroal.records import rates
from neuroal.records.rates import kept_observations
from tests.grid.small import SMALL

GRID = [*SMALL, "pruner=wanda", "sparsity=s60", "topup=neuroal", "refine=none", "device=cpu"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep rates in an empty folder."""
    monkeypatch.setenv(rates.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Return the estimate of ``plan``."""
    assert grid_command(["plan", "--json", *GRID, *arguments]) == 0
    left: dict[str, Any] = json.loads(capsys.readouterr().out)["left"]
    return left


def test_a_plan_knows_what_an_earlier_one_has_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"out={tmp_path / 'out'}"
    assert plan(capsys, out)["seconds"] is None
    measured = plan(capsys, out, "--measure")
    assert measured["seconds"] > 0
    stages = {o.stage for o in kept_observations()}
    expected = {"load", "calibrate builtin", "search neuroal", "pruning wanda"}
    assert stages == expected | {"pass", "step", "fingerprint"}

    def load(*arguments: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("neuroal.models.load.read_whole", load)
    assert plan(capsys, out) == measured
    more = plan(capsys, out, "sparsity=s60,s70")
    assert measured["seconds"] < more["seconds"] < 2 * measured["seconds"]


def test_what_was_measured_counts_even_if_it_cannot_be_kept(
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache.write_text("a file where the folder would be")
    with caplog.at_level(logging.WARNING, "neuroal"):
        assert plan(capsys, f"out={tmp_path / 'out'}", "--measure")["seconds"] > 0
    assert "later plans lack what was measured" in caplog.text


def test_a_pruner_that_updates_weights_is_measured_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uniform = plan(capsys, f"out={tmp_path}", "--measure", "pruner=sparsegpt", "topup=uniform")
    stages = {o.stage for o in kept_observations()}
    assert "pruning sparsegpt" in stages
    assert not any(stage.startswith("search") for stage in stages)
    searched = plan(capsys, f"out={tmp_path}", "pruner=sparsegpt")
    assert searched["seconds"] > uniform["seconds"]


def test_the_work_of_a_measured_search_is_that_of_its_few_candidates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(capsys, f"out={tmp_path}", "--measure")
    (brief,) = (o for o in kept_observations() if o.stage == "search neuroal")
    (whole,) = (o for o in kept_observations() if o.stage == "pass")
    assert brief.work / whole.work == pytest.approx(2 * 4 * 2 * 32 / (8 * 512))
