"""``--dry-run`` says what a run would do, and does nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from neuroal.cli.compose import composed
from neuroal.cli.dry_run import dry_run

FEW = [
    *(f"calibration.{key}" for key in ("windows=2", "search_windows=1", "seqlen=32")),
    *("task.seqlen=32", "task.limit=2", "topup=uniform", "pruner=magnitude"),
]


def test_a_dry_run_names_steps_inputs_and_outputs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    result = dry_run(composed([*FEW, f"out={out}", "save.masks=true", "save.plan=plan.json"]))
    content = result.content
    assert content["does"] == [
        "draw 2 windows",
        "allocate by topup=uniform",
        "prune by pruner=magnitude",
        "evaluate dense and pruned: builtin",
    ]
    stem = str(out / content["identity"])
    assert content["writes"] == [f"{stem}.json", f"{stem}.log", f"{stem}.masks.npz", "plan.json"]
    assert content["reads"]["model"] == "zoo: llama"
    result.show()
    assert "memory about 0." in capsys.readouterr().out
    assert not out.exists()


def test_a_dry_run_of_a_finished_run_has_nothing_to_do(tmp_path: Path) -> None:
    from neuroal.run import run

    config = composed([*FEW, f"out={tmp_path}", "progress=none"])
    assert dry_run(config).content["identity"] == run(config)[0].identity
    content = dry_run(config).content
    assert content["does"] == content["writes"] == []
    again = dry_run(dataclasses.replace(config, force=True)).content
    assert "prune by pruner=magnitude" in again["does"]
