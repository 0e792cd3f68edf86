"""A sweep reads a model once and prunes copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from neuroal.config.schema import ModelConfig
from neuroal.models import last
from neuroal.models.last import LastModel
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.location import locate_model

CPU = torch.device("cpu")
TEXT = "A whale is not a fish."


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[ModelConfig]:
    """Return a list of the models that are read from their files from now on."""
    configs: list[ModelConfig] = []

    def counting(config: ModelConfig, *rest: object) -> LoadedModel:
        configs.append(config)
        return load_model(config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("neuroal.models.load.load_model", counting)
    return configs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    zoo = locate_model(ModelConfig(source="zoo", path="llama")).folder
    return Path(shutil.copytree(zoo, tmp_path / "model"))


def of(folder: Path, dtype: str = "auto") -> ModelConfig:
    return ModelConfig(source="hf", path=str(folder), dtype=dtype)


def test_a_copy_is_the_model_as_it_was_read(reads: list[ModelConfig], folder: Path) -> None:
    models = LastModel()
    first = models.load(of(folder), CPU)
    tokens = first.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = first.model(tokens).logits
        for parameter in first.model.parameters():
            parameter.zero_()
    first.tokenizer.add_tokens(["whale"])
    again = models.load(of(folder), CPU)
    assert len(reads) == 1
    assert torch.equal(again.tokenizer(TEXT, return_tensors="pt")["input_ids"], tokens)
    with torch.no_grad():
        assert torch.equal(again.model(tokens).logits, expected)
    weights = [p.data_ptr() for p in again.model.parameters()]
    assert len(weights) == len({id(p) for p in load_model(of(folder), CPU).model.parameters()})


@pytest.mark.parametrize("change", ["files", "dtype", "another model", "offload", "size"])
def test_another_model_is_read(
    change: str, reads: list[ModelConfig], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "size":
        monkeypatch.setattr(last, "LARGEST", 10)
    models = LastModel()
    models.load(of(folder), CPU)
    offload = "blocks" if change == "offload" else "none"
    config = of(folder, "bfloat16" if change == "dtype" else "auto")
    if change == "files":
        settings = folder / "config.json"
        settings.write_text(settings.read_text().replace("{", "{ ", 1))
    if change == "another model":
        config = ModelConfig(source="zoo", path="opt")
    models.load(config, CPU, offload)
    assert len(reads) == 2
