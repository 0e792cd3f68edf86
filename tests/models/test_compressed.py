"""A compressed checkpoint is smaller, in the layout of compressed-tensors, and the same model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

import neuroal
from neuroal.cli.compose import composed
from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.files.manifest import Manifest
from neuroal.files.outputs import ModelFolder
from neuroal.models.adapter import DecoderModel
from neuroal.models.compressed import FORMAT
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.location import ZOO
from neuroal.models.offload import place_on_host
from neuroal.models.save import save_model
from neuroal.models.semi_structured import has_two_of_four
from neuroal.run import run
from tests.architectures import EXPERTS, build
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which zoo/llama, pruned to 70 %, is saved in both formats as bfloat16."""
    folder = tmp_path_factory.mktemp("saved")
    overrides = ["model=zoo/llama", "model.dtype=bfloat16", "pruner=magnitude", "topup=uniform"]
    overrides += ["task=builtin", "task.limit=1", "task.seqlen=32", f"out={folder / 'runs'}"]
    overrides += ["calibration.windows=1", "calibration.seqlen=16"]
    for form in ("dense", "compressed"):
        run(composed([*overrides, f"save.model={folder / form}", f"save.format={form}"]))
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(random_tokens(2, 16)).logits


def hugging_face(path: Path, **changes: object) -> LoadedModel:
    return load_model(ModelConfig(source="hf", path=str(path), **changes), CPU)  # type: ignore[arg-type]


def test_both_readers_give_the_logits_of_the_dense_model(saved: Path) -> None:
    expected = logits(hugging_face(saved / "dense", dtype="bfloat16").model)
    assert torch.equal(logits(neuroal.load_compressed(saved / "compressed")), expected)
    again = hugging_face(saved / "compressed", dtype="bfloat16").model
    assert torch.equal(logits(again), expected)
    assert not hasattr(again.config, "quantization_config")


def test_blocks_are_offloaded_to_a_compressed_checkpoint(saved: Path) -> None:
    config = ModelConfig(source="hf", path=str(saved / "compressed"))
    disk = load_model(config, CPU, offload="disk").model
    assert torch.equal(logits(disk), logits(hugging_face(saved / "dense").model))


def test_pruned_matrices_take_at_most_37_percent_of_their_dense_bytes(saved: Path) -> None:
    stored, dense = tensors(saved / "compressed"), tensors(saved / "dense")
    stems = [name.removesuffix(".bitmask") for name in stored if name.endswith(".bitmask")]
    assert len(stems) == 8 * 7
    size = sum(stored[f"{s}.{part}"].nbytes for s in stems for part in ("compressed", "bitmask"))
    assert size <= 0.37 * sum(dense[f"{stem}.weight"].nbytes for stem in stems)
    assert dense[f"{stems[0]}.weight"].dtype == torch.bfloat16


def test_the_layout_is_that_of_compressed_tensors(saved: Path) -> None:
    """Values and offsets by row, columns from the lowest bit: its format sparse-bitmask."""
    stored, dense = tensors(saved / "compressed"), tensors(saved / "dense")
    stem = "model.layers.0.mlp.down_proj"
    matrix = dense[f"{stem}.weight"]
    assert stored[f"{stem}.shape"].tolist() == list(matrix.shape)
    assert torch.equal(stored[f"{stem}.compressed"], matrix[matrix != 0])
    bits = stored[f"{stem}.bitmask"].int()
    columns = torch.stack([bits[:, col // 8] >> (col % 8) & 1 for col in range(matrix.shape[1])], 1)
    assert torch.equal(columns.bool(), matrix != 0)
    counts = (matrix != 0).sum(1)
    assert stored[f"{stem}.row_offsets"].tolist() == [0, *counts.cumsum(0)[:-1].tolist()]
    config = json.loads((saved / "compressed" / "config.json").read_text())
    sparsity = config["quantization_config"]["sparsity_config"]
    assert sparsity["format"] == FORMAT
    assert stem in sparsity["targets"]


def test_a_matrix_that_compression_would_enlarge_stays_dense(tmp_path: Path) -> None:
    model = tiny_llama().model
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:, 2:] = 0
    target = ModelFolder(tmp_path / "X", "a" * 16, format="compressed")
    save_model(LoadedModel(model, tokenizer, "tiny"), target, {})
    names = [name for name in tensors(tmp_path / "X") if name.endswith(".bitmask")]
    assert names == ["model.layers.1.mlp.up_proj.bitmask"]
    assert torch.equal(logits(neuroal.load_compressed(tmp_path / "X")), logits(model))


def test_another_format_of_the_same_run_replaces_the_folder(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "llama")
    loaded = LoadedModel(tiny_llama().model, tokenizer, "tiny")
    for form in ("dense", "compressed"):
        target = ModelFolder(tmp_path / "X", "a" * 16, format=form)
        assert not target.is_complete()
        save_model(loaded, target, {})
        assert target.is_complete()
    assert Manifest.read(tmp_path / "X").format == "compressed"  # type: ignore[union-attr]


def test_a_damaged_compressed_matrix_is_one_line(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "X"
    folder.mkdir()
    for path in (saved / "compressed").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    stored = tensors(folder)
    stored["model.layers.0.mlp.up_proj.bitmask"][0, 0] ^= 1
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up_proj\.weight' in .* is damaged"):
        hugging_face(folder)


def test_a_dense_folder_is_refused_by_load_compressed(saved: Path) -> None:
    with pytest.raises(UserError, match="is not compressed; use AutoModelForCausalLM"):
        neuroal.load_compressed(saved / "dense")


def test_two_of_four_is_named_in_the_configuration(tmp_path: Path) -> None:
    overrides = ["model=zoo/opt", "model.dtype=bfloat16", "pruner=magnitude", "topup=uniform"]
    overrides += [
        "sparsity=2of4",
        "task=none",
        f"out={tmp_path / 'runs'}",
        "save.format=compressed",
    ]
    overrides += ["calibration.windows=1", "calibration.seqlen=16", f"save.model={tmp_path / 'X'}"]
    run(composed(overrides))
    config = json.loads((tmp_path / "X" / "config.json").read_text())
    assert config["quantization_config"]["sparsity_config"]["sparsity_structure"] == "2:4"
    assert has_two_of_four(DecoderModel(neuroal.load_compressed(tmp_path / "X")))


def test_experts_and_shards_are_compressed(tmp_path: Path) -> None:
    """Experts that the model holds in one tensor are stored one by one, in shards by block."""
    model = build("mixtral", **EXPERTS["mixtral"])
    neuroal.prune(model, random_tokens(2, 16), pruner="magnitude", topup="uniform")
    expected = logits(model)
    place_on_host(model, CPU)
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "llama")
    target = ModelFolder(tmp_path / "X", "a" * 16, format="compressed")
    save_model(LoadedModel(model, tokenizer, "tiny"), target, {})
    index = json.loads((tmp_path / "X" / "model.safetensors.index.json").read_text())
    assert any(name.endswith("experts.0.w1.bitmask") for name in index["weight_map"])
    assert torch.equal(logits(neuroal.load_compressed(tmp_path / "X")), expected)
