"""A damaged or contradictory checkpoint is refused in one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.models.load import load_model
from tests.fuzzing.inputs import write_model

WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
Damage = Callable[[Path], None]


def content(name: str, data: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def cut(name: str, size: int) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return damage


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**stored, **changes}))

    return damage


def smaller_embedding(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-8].contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def pickled(size: int | None) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
        cut("pytorch_model.bin", size or 10**9)(folder)

    return damage


def missing_shard(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    index = {"weight_map": {"lm_head.weight": "model-2.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def outside_shard(folder: Path) -> None:
    missing_shard(folder)
    index = {"weight_map": {"lm_head.weight": "../model.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


CASES: dict[str, tuple[Damage, str]] = {
    "pointer": (content(WEIGHTS, POINTER), f"{WEIGHTS} is a pointer of Git LFS"),
    "pointer config": (content("config.json", POINTER), "config.json is a pointer of Git LFS"),
    "empty": (content(WEIGHTS, b""), f"{WEIGHTS} is empty"),
    "cut": (cut(WEIGHTS, 500), f"{WEIGHTS} is cut off"),
    "cut data": (cut(WEIGHTS, -10), f"{WEIGHTS} has [0-9]+ bytes instead of"),
    "cut bin": (pickled(3000), "pytorch_model.bin is cut off"),
    "missing shard": (missing_shard, "model-2.safetensors is named by the index and missing"),
    "shard outside": (outside_shard, "which is no file of its folder"),
    "embedding": (smaller_embedding, "'model.embed_tokens.weight' has shape 4088×16"),
    "no JSON": (content("config.json", b"{"), "config.json is not JSON"),
    "deep JSON": (content("config.json", b'{"a":' * 90_000), "config.json is not JSON"),
    "list": (content("config.json", b"[]"), "config.json holds a list, not an object"),
    "tokenizer": (content("tokenizer.json", b"{}"), "the tokenizer cannot be loaded"),
    "heads": (config(num_attention_heads=0), "cannot be loaded .ZeroDivisionError"),
    "text for heads": (config(num_attention_heads="2"), "'num_attention_heads': TypeError"),
    "layers": (config(num_hidden_layers=10**9), "has 1000000000 layers"),
    "size": (config(vocab_size=10**9), "config.json needs 1000000000×16"),
    "GPTQ": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "not quantised|gptq|offload=blocks",
    ),
    "AWQ": (
        config(quantization_config={"quant_method": "awq"}),
        "not quantised|awq|offload=blocks",
    ),
    "bitsandbytes": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "use the checkpoint that is not quantised|use offload=blocks",
    ),
    "compressed": (
        config(quantization_config={"quant_method": "compressed-tensors"}),
        "use the checkpoint that is not quantised|use offload=blocks",
    ),
    "flash attention": (
        config(_attn_implementation="flash_attention_2"),
        "remove the attention implementation from config.json",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("offload", ["none", "disk"])
def test_a_damaged_checkpoint_is_refused(case: str, offload: str, tmp_path: Path) -> None:
    damage, message = CASES[case]
    write_model(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        load_model(ModelConfig(source="hf", path=str(tmp_path)), torch.device("cpu"), offload)
    assert "\n" not in str(refused.value)


def test_a_config_that_fails_on_text_is_refused(tmp_path: Path) -> None:
    """All shapes agree, and the heads have an odd number of columns, which cannot be rotated."""
    write_model(tmp_path, head_dim=3)
    with pytest.raises(UserError, match="cannot run on text; check its config"):
        load_model(ModelConfig(source="hf", path=str(tmp_path)), torch.device("cpu"))


def test_remote_code_whose_import_is_missing_is_named(tmp_path: Path) -> None:
    write_model(tmp_path)
    config(auto_map={"AutoConfig": "own.Config"}, model_type="own")(tmp_path)
    (tmp_path / "own.py").write_text("import a_package_that_nobody_has\n")
    model = ModelConfig(source="hf", path=str(tmp_path), trust_remote_code=True)
    with pytest.raises(UserError, match="a_package_that_nobody_has"):
        load_model(model, torch.device("cpu"))
