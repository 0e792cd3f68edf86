"""The identity of a run depends on the settings that determine its pruned model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import neuroal
from neuroal.cli.compose import composed
from neuroal.records.identity import environment, identity_of

SAME = [
    "out=elsewhere",
    "device=cpu",
    "batch=3",
    "task.names=[builtin,rte]",
    "task.limit=7",
    "task.bos=window",
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
    "calibration.bos=window",
    "seed=1",
]


@pytest.mark.parametrize("setting", SAME)
def test_place_device_and_tasks_do_not_change_the_identity(setting: str) -> None:
    assert identity_of(composed([setting])) == identity_of(composed([]))


def test_settings_of_the_pruned_model_change_the_identity() -> None:
    identities = [identity_of(composed([setting])) for setting in ("seed=0", *OTHER)]
    assert len(set(identities)) == len(identities)


def test_a_calibration_text_counts_by_its_content(tmp_path: Path) -> None:
    def digest(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return identity_of(composed(["calibration=text", f"calibration.path={tmp_path / name}"]))

    assert digest("a.txt", "one") == digest("b.txt", "one") != digest("a.txt", "two")


def test_a_start_plan_counts_by_its_content(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        (tmp_path / "plan.json").write_text(text)
        return identity_of(composed(["topup=marginal", f"topup.start={tmp_path / 'plan.json'}"]))

    assert digest("one") == digest("one") != digest("two")


def test_it_is_computed_without_loading_torch() -> None:
    code = (
        "import sys; from neuroal.cli.compose import composed; "
        "from neuroal.records.identity import *; "
        "identity_of(composed([])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_environment_names_the_version_of_the_package() -> None:
    assert environment(torch.device("cpu"))["packages"]["neuroal"] == neuroal.__version__
