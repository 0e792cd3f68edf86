"""On a GPU, a plan that measures tells compiling from what every run repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroal.cli.grid import grid_command
from neuroal.records import rates
from neuroal.records.rates import kept_observations


def test_what_a_process_does_once_on_a_gpu_is_measured_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(rates.CACHE, str(tmp_path))
    grid = ["experiment=quick", "pruner=wanda", "topup=neuroal", "task.names=[builtin]"]
    assert grid_command(["plan", "--measure", "--json", *grid, f"out={tmp_path / 'out'}"]) == 0
    assert json.loads(capsys.readouterr().out)["left"]["seconds"] > 0
    stages = {o.stage for o in kept_observations()}
    assert {"first allocate neuroal", "first prune wanda", "search neuroal"} <= stages
