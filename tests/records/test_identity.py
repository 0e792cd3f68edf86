"""A run is known by what decides its pruned model, before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neuroal.cli import composed
from neuroal.records.identity import identity

SAME = [
    "out=elsewhere",
    "device=cpu",
    "batch=3",
    "task.names=[builtin,rte]",
    "task.limit=7",
    "save.masks=true",
    "logger=wandb",
    "calibration.seed=0",
    "model.name=another",
]
OTHER = [
    "model=zoo/opt",
    "model.dtype=bfloat16",
    "pruner=magnitude",
    "topup.step=block",
    "refine=dsnot",
    "sparsity.ratio=0.71",
    "rules=reference",
    "calibration.windows=127",
    "seed=1",
]


@pytest.mark.parametrize("setting", SAME)
def test_where_how_and_what_is_measured_decides_nothing(setting: str) -> None:
    assert identity(composed([setting])) == identity(composed([]))


def test_all_that_decides_the_pruned_model_tells_runs_apart() -> None:
    found = [identity(composed([setting])) for setting in ("seed=0", *OTHER)]
    assert len(set(found)) == len(found)


def test_files_count_by_their_content(tmp_path: Path) -> None:
    def of(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return identity(composed(["calibration=text", f"calibration.path={tmp_path / name}"]))

    assert of("a.txt", "one") == of("b.txt", "one") != of("a.txt", "two")


def test_so_does_the_plan_that_a_top_up_starts_from(tmp_path: Path) -> None:
    def of(text: str) -> str:
        (tmp_path / "plan.json").write_text(text)
        return identity(composed(["topup=marginal", f"topup.start={tmp_path / 'plan.json'}"]))

    assert of("one") == of("one") != of("two")


def test_it_is_known_without_loading_torch() -> None:
    code = (
        "import sys; from neuroal.cli import composed; from neuroal.records.identity import *; "
        "identity(composed([])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
