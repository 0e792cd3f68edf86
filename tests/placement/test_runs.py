"""Records and saved models do not depend on `offload` and `devices`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from neuroal.cli.compose import composed
from neuroal.errors import UserError
from neuroal.records.schema import Record
from neuroal.run import run

SMALL = [
    "calibration.windows=4",
    "calibration.search_windows=2",
    "calibration.seqlen=32",
    "task.seqlen=32",
    "task.limit=4",
    "batch=2",
    "topup.block_candidates=[0.05,0.15]",
    "topup.row_candidates=[0.0,0.1]",
]


def run_with(folder: Path, *overrides: str) -> Record:
    record, _ = run(
        composed([*SMALL, *overrides, f"out={folder}/runs", f"save.model={folder}/model"])
    )
    return record


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    folder = tmp_path_factory.mktemp("plain")
    return run_with(folder), folder


@pytest.mark.parametrize(
    "override",
    [
        pytest.param("offload=blocks", marks=pytest.mark.slow),
        "offload=disk",
        "devices=2",
        pytest.param("offload=devices devices=2", marks=pytest.mark.slow),
    ],
)
def test_the_result_does_not_depend_on_offloading_or_devices(
    override: str, plain: tuple[Record, Path], tmp_path: Path
) -> None:
    expected, folder = plain
    record = run_with(tmp_path, *override.split())
    assert record.identity == expected.identity
    assert record.masks == expected.masks
    assert record.plan == expected.plan
    assert record.costs["batch"] == {"allocate": 2, "prune": 2}
    for name in ("dense", "pruned"):
        value, reference = (r.metrics["builtin"][name]["value"] for r in (record, expected))
        assert value == pytest.approx(reference, rel=1e-6)
    models = [AutoModelForCausalLM.from_pretrained(p / "model") for p in (tmp_path, folder)]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not [name for name in os.listdir(tmp_path / "runs") if name.startswith(".offload")]


def test_devices_and_offload_exclude_each_other() -> None:
    with pytest.raises(UserError, match="devices=2: every device holds the whole model"):
        composed(["devices=2", "offload=blocks"])
    with pytest.raises(UserError, match=r"^offload=devices: .* but devices=1; use devices=2"):
        composed(["offload=devices"])
