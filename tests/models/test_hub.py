"""Models from the hub: pinned revisions, remote code and gated models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from neuroal.config.schema import ModelConfig
from neuroal.data import hub
from neuroal.errors import UserError
from neuroal.models import load
from neuroal.models.fingerprint import fingerprint
from neuroal.models.location import ZOO
from tests.small_models import tiny_llama

CPU = torch.device("cpu")
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path(__file__).with_name("ran").touch()

class MineConfig(LlamaConfig):
    model_type = "mine"

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    hub.unreachable.cache_clear()
    yield folder
    hub.unreachable.cache_clear()


def save(folder: Path, seed: int) -> str:
    """Save a tiny model with a tokenizer of the zoo and return the model's fingerprint."""
    model = tiny_llama(vocab_size=4096).model
    with torch.no_grad():
        model.lm_head.weight.fill_(float(seed))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(ZOO / "llama").save_pretrained(folder)
    return fingerprint(model)


def test_a_revision_selects_the_weights_in_the_cache(cache: Path) -> None:
    folder, fingerprints = cache / "models--me--tiny", {}
    (folder / "refs").mkdir(parents=True)
    for seed, (revision, digit) in enumerate((("main", "a"), ("v1", "b"))):
        (folder / "refs" / revision).write_text(digit * 40)
        fingerprints[revision] = save(folder / "snapshots" / (digit * 40), seed)
    assert len(set(fingerprints.values())) == 2
    for revision, expected in (("v1", "v1"), ("b" * 40, "v1"), (None, "main")):
        config = ModelConfig(source="hf", path="me/tiny", revision=revision)
        assert fingerprint(load.load_model(config, CPU).model) == fingerprints[expected]
    with pytest.raises(UserError, match="hf download me/tiny --revision v2"):
        load.load_model(ModelConfig(source="hf", path="me/tiny", revision="v2"), CPU)


def test_code_of_a_checkpoint_runs_only_if_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    folder = tmp_path / "mine"
    save(folder, 0)
    (folder / "modeling_mine.py").write_text(CODE)
    model_config = json.loads((folder / "config.json").read_text())
    model_config["model_type"] = "mine"
    model_config["auto_map"] = {
        "AutoConfig": "modeling_mine.MineConfig",
        "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(model_config))
    config = ModelConfig(source="hf", path=str(folder))
    with pytest.raises(UserError, match=r"model\.trust_remote_code=true"):
        load.load_model(config, CPU)
    assert not list(modules.rglob("ran"))
    config.trust_remote_code = True
    loaded = load.load_model(config, CPU)
    assert type(loaded.model).__name__ == "MineForCausalLM"
    assert list(modules.rglob("ran"))


def test_the_error_for_a_gated_model_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gated(*_: object, **__: object) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it")

    save(tmp_path, 0)
    monkeypatch.setattr(load.AutoConfig, "from_pretrained", gated)
    with pytest.raises(
        UserError, match="gated repo; request access on the model's page and set HF_TOKEN"
    ):
        load.load_model(ModelConfig(source="hf", path=str(tmp_path)), CPU)
