"""Saving a model: a failed write keeps what was there, in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer

from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.files.outputs import ModelFolder
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.location import ZOO
from neuroal.models.save import save_model
from neuroal.topups.plan_file import PlanFile
from tests.small_models import check, tiny_llama

MINE, OTHER = "a" * 16, "b" * 16
PLAN = {"sparsity": 0.6, "ratios": {"0.mlp.up_proj": 0.6}}


@pytest.fixture
def loaded() -> LoadedModel:
    return LoadedModel(tiny_llama().model, AutoTokenizer.from_pretrained(ZOO / "llama"), "tiny")


def test_a_saved_model_is_loaded_again_with_its_plan(loaded: LoadedModel, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    save_model(loaded, ModelFolder(folder, MINE), PLAN)
    assert ModelFolder(folder, MINE).is_complete()
    again = load_model(ModelConfig(source="hf", path=str(folder)), torch.device("cpu"))
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)
    check(PlanFile(str(folder / "plan.json")), pruner=_magnitude())


def _magnitude() -> Any:
    from neuroal.config.instantiate import named_method

    return named_method("pruner", "magnitude")


@pytest.mark.parametrize("writer", ["model", "tokenizer"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), SafetensorError("io error")])
def test_a_full_disk_is_one_line_and_keeps_the_previous_model(
    writer: str,
    error: Exception,
    loaded: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_model(loaded, ModelFolder(tmp_path / "X", OTHER), PLAN)

    def fail(folder: Path, **options: object) -> None:
        (Path(folder) / "model.safetensors").write_text("half")
        raise error

    monkeypatch.setattr(getattr(loaded, writer), "save_pretrained", fail)
    with pytest.raises(UserError, match=r"save\.model=.*X: cannot be written"):
        save_model(loaded, ModelFolder(tmp_path / "X", MINE, overwrite=True), PLAN)
    assert os.listdir(tmp_path) == ["X"]
    assert ModelFolder(tmp_path / "X", OTHER).is_complete()
