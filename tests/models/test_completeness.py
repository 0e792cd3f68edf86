"""Checkpoints that do not hold exactly the weights of their model are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForSequenceClassification

from neuroal.config.schema import ModelConfig
from neuroal.data import hub
from neuroal.errors import UserError
from neuroal.models.load import load_model
from neuroal.models.location import ZOO
from tests.architectures import ARCHITECTURES, build
from tests.small_models import random_tokens

CPU = torch.device("cpu")
UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OFFLOADS = ["none", "blocks", "disk"]
Tensors = dict[str, Tensor]


def save(folder: Path, model: Any, **options: Any) -> Any:
    """Save `model` and a tokenizer to `folder`."""
    model.save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(ZOO / "llama").save_pretrained(folder)
    return model


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    """Change the tensors of the single safetensors file in `folder`."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **settings: Any) -> None:
    """Change entries of ``config.json``; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def load(path: Path | str, offload: str = "none") -> Any:
    return load_model(ModelConfig(source="hf", path=str(path)), CPU, offload).model


def refuse(path: Path | str, message: str, offload: str = "none") -> None:
    """Assert that loading raises a one-line `UserError` that names `path` and matches `message`."""
    with pytest.raises(UserError, match=message) as caught:
        load(path, offload)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


CHANGES: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop(UP), f"no tensor '{UP}'; download"),
    "a missing block": (
        lambda t: [t.pop(name) for name in list(t) if "layers.3" in name],
        r"no tensor 'model\.layers\.3\..* and 8 more",
    ),
    "another shape": (lambda t: t.update({UP: t[UP][:5].clone()}), f"'{UP}' has shape 5×32"),
    "a smaller embedding": (
        lambda t: t.update({EMBEDDING: t[EMBEDDING][:40].clone()}),
        f"'{EMBEDDING}' has shape 40×32, but config.json needs 64×32",
    ),
    "integers": (
        lambda t: t.update({UP: t[UP].to(torch.int8)}),
        f"'{UP}' in model.safetensors has dtype I8, not floating",
    ),
    "a surplus bias": (
        lambda t: t.update({UP.replace("weight", "bias"): torch.ones(48)}),
        "has a tensor 'model.layers.1.mlp.up_proj.bias', which the model",
    ),
    "no head": (lambda t: t.pop(HEAD), f"no tensor '{HEAD}', the model's head"),
}


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("case", CHANGES)
def test_a_wrong_tensor_is_named(
    case: str, offload: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, message = CHANGES[case]
    save(tmp_path, build("llama"))
    edit(tmp_path, change)
    capfd.readouterr()
    refuse(tmp_path, message, offload)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_depth_of_another_model_is_refused(offload: str, tmp_path: Path) -> None:
    save(tmp_path, build("llama"))
    configure(tmp_path, num_hidden_layers=3)
    refuse(tmp_path, r"has a tensor 'model\.layers\.3\.", offload)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_head_is_optional_only_if_it_is_tied(offload: str, tmp_path: Path) -> None:
    model = save(tmp_path, build("llama", tie_word_embeddings=True))
    tokens = random_tokens(1, 8)
    assert torch.allclose(load(tmp_path, offload)(tokens).logits, model(tokens).logits, atol=1e-5)
    configure(tmp_path, tie_word_embeddings=None)
    refuse(tmp_path, f"no tensor '{HEAD}', the model's head.*tie_word_embeddings", offload)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_head_with_its_own_values_is_not_tied(offload: str, tmp_path: Path) -> None:
    model = save(tmp_path, build("llama"))
    configure(tmp_path, tie_word_embeddings=True)
    tokens = random_tokens(1, 8)
    assert torch.allclose(load(tmp_path, offload)(tokens).logits, model(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_classifier_is_refused(offload: str, tmp_path: Path) -> None:
    save(tmp_path, LlamaForSequenceClassification(build("llama").config))
    refuse(tmp_path, "holds a LlamaForSequenceClassification", offload)
    configure(tmp_path, architectures=None)
    refuse(tmp_path, f"no tensor '{HEAD}'", offload)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_harmless_tensors_are_accepted(offload: str, tmp_path: Path) -> None:
    save(tmp_path, build("llama"))
    rotary = "model.layers.1.self_attn.rotary_emb.inv_freq"
    edit(tmp_path, lambda t: t.update({rotary: torch.ones(4)}))
    load(tmp_path, offload)
    edit(tmp_path, lambda t: t.update({"v_head.summary.weight": torch.ones(4)}))
    with pytest.warns(UserWarning, match=r"does not use: 'v_head\.summary\.weight'"):
        load(tmp_path, offload)


def test_pickled_and_sharded_checkpoints_are_checked(tmp_path: Path) -> None:
    model = build("llama")
    pickled = tmp_path / "pickled"
    save(pickled, model)
    (pickled / "model.safetensors").unlink()
    state = dict(model.state_dict())
    torch.save(state, pickled / "pytorch_model.bin")
    load(pickled)
    torch.save({**state, UP: state[UP].to(torch.int8)}, pickled / "pytorch_model.bin")
    refuse(pickled, r"in pytorch_model\.bin has dtype int8")
    del state[UP]
    torch.save(state, pickled / "pytorch_model.bin")
    refuse(pickled, f"no tensor '{UP}'")
    sharded = tmp_path / "sharded"
    save(sharded, model, max_shard_size="20KB")
    path = next(path for path in sharded.glob("model-*") if UP in load_file(path))
    tensors = load_file(path)
    for change, message in (
        ({UP: tensors[UP].to(torch.int8)}, f"in {path.name} has dtype I8"),
        ({UP: None}, f"no tensor '{UP}'"),
    ):
        changed = {key: value for key, value in {**tensors, **change}.items() if value is not None}
        save_file(changed, path, metadata={"format": "pt"})
        for offload in OFFLOADS:
            refuse(sharded, message, offload)


def test_a_model_of_the_hub_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.unreachable.cache_clear()
    folder = tmp_path / "models--me--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    files = folder / "snapshots" / ("a" * 40)
    save(files, build("llama"))
    edit(files, lambda t: t.update({UP: t[UP].to(torch.int8)}))
    refuse("me/tiny", f"'{UP}' in model.safetensors has dtype I8")
    edit(files, lambda t: t.pop(UP))
    refuse("me/tiny", f"no tensor '{UP}'")


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    save(tmp_path, build("mixtral", num_key_value_heads=2, num_local_experts=4))
    load(tmp_path)
    refuse(tmp_path, r"no tensor.*or use offload=blocks if it stores it in another form", "disk")
    edit(tmp_path, lambda t: t.pop("model.layers.0.block_sparse_moe.experts.1.w1.weight"))
    refuse(tmp_path, r"'model\.layers\.0\.mlp\.experts\.gate_up_proj' cannot be combined")


def test_quantised_weights_are_not_read_from_disk_block_by_block(tmp_path: Path) -> None:
    save(tmp_path, build("llama"))
    configure(tmp_path, quantization_config={"quant_method": "fp8"})
    refuse(tmp_path, "offload=disk: .* quantised weights", "disk")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_is_complete(model_type: str, tmp_path: Path) -> None:
    model = save(tmp_path, build(model_type, **ARCHITECTURES[model_type][0]))
    tokens = random_tokens(1, 8)
    assert torch.allclose(load(tmp_path)(tokens).logits, model(tokens).logits, atol=1e-5)
