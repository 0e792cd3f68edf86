"""Runs of a shipped model with `offload` and `devices`: the same record, and a saved model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from neuroal.cli import composed
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


def run_with(folder: Path, *words: str) -> Record:
    record, _ = run(composed([*SMALL, *words, f"out={folder}/runs", f"save.model={folder}/model"]))
    return record


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    folder = tmp_path_factory.mktemp("plain")
    return run_with(folder), folder


@pytest.mark.parametrize(
    "word",
    [pytest.param("offload=blocks", marks=pytest.mark.slow), "offload=disk", "devices=2"],
)
def test_where_blocks_wait_does_not_show_in_the_result(
    word: str, plain: tuple[Record, Path], tmp_path: Path
) -> None:
    wanted, folder = plain
    found = run_with(tmp_path, word)
    assert found.identity == wanted.identity
    assert found.masks == wanted.masks
    assert found.plan == wanted.plan
    assert found.costs["batch"] == {"allocate": 2, "prune": 2}
    for name in ("dense", "pruned"):
        value, expected = (r.metrics["builtin"][name]["value"] for r in (found, wanted))
        assert value == pytest.approx(expected, rel=1e-6)
    models = [AutoModelForCausalLM.from_pretrained(p / "model") for p in (tmp_path, folder)]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not [name for name in os.listdir(tmp_path / "runs") if name.startswith(".offload")]


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UserError, match="devices=2: every device holds the whole model"):
        composed(["devices=2", "offload=blocks"])
