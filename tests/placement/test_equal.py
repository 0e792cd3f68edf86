"""Plans, masks and perplexities do not depend on the placement of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, OPTConfig, OPTForCausalLM, PreTrainedModel

from neuroal.api import prune
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.adapter import DecoderModel
from neuroal.models.offload import (
    open_on_disk,
    place_on_devices,
    place_on_host,
    save_offloaded,
    weights_of,
)
from neuroal.placement.base import placement_of
from neuroal.placement.offloaded import Offloaded
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import apply_masks
from neuroal.records.resume import RunFiles
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from tests.masks import digest
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")
TOKENS = random_tokens(6, 24)
SHORT_SEARCH = NeuroAL(block_candidates=[0.05, 0.2], row_candidates=[0.0, 0.1])


def tiny_opt() -> PreTrainedModel:
    """Return a model with biases, learned positions and tied embeddings."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=64,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    )
    return OPTForCausalLM(config).eval()


def build(family: str) -> PreTrainedModel:
    return tiny_llama().model if family == "llama" else tiny_opt()


def build_placed(family: str, offload: str, folder: Path) -> PreTrainedModel:
    """Return the model of `family` with the given `offload`."""
    model = build(family)
    if offload == "blocks":
        place_on_host(model, CPU)
    if offload == "devices":
        place_on_devices(model, [CPU] * 3)
    if offload == "disk":
        model.save_pretrained(folder, max_shard_size="20KB")
        model = open_on_disk(folder, AutoConfig.from_pretrained(folder), None, CPU, folder)
    return model


def results_of(model: PreTrainedModel, **settings: Any) -> dict[str, Any]:
    """Prune `model` and return the results that must not depend on the placement."""
    dense = perplexity(model, TOKENS, batch=4).value
    result = prune(model, TOKENS, search_windows=2, batch=2, **settings)
    sparse = perplexity(model, TOKENS, batch=4).value
    masks = {key: digest(mask) for key, mask in result.masks.items()}
    return {"masks": masks, "report": result.report, "perplexity": (dense, sparse)}


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["masks"] == second["masks"]
    assert first["report"] == second["report"]
    assert first["perplexity"] == pytest.approx(second["perplexity"], rel=1e-6)
    assert first["perplexity"][0] != pytest.approx(first["perplexity"][1], rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("offload", ["blocks", "devices", "disk"])
def test_search_and_pruning_do_not_depend_on_the_placement(
    family: str, offload: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"topup": SHORT_SEARCH, "pruner": "wanda"}
    resident = results_of(build(family), **settings)
    assert_equal(results_of(build_placed(family, offload, tmp_path), **settings), resident)


@pytest.mark.parametrize(
    "settings",
    [
        {"pruner": "magnitude", "topup": "alpha"},
        {"pruner": "sparsegpt", "topup": "owl"},
        {"pruner": "multiflow", "topup": "uniform", "refine": "dsnot"},
        {"pruner": "wanda", "topup": NeuroAL(block_candidates=[0.1], criterion="output_kl")},
        {"topup": EqualMarginals(linear_iterations=2, row_iterations=2, windows=2)},
        {"topup": Fisher(windows=2, rounds=2)},
        {"topup": Fisher(windows=2, rounds=2, form="elementwise")},
    ],
    ids=lambda settings: f"{settings.get('pruner')}",
)
@pytest.mark.filterwarnings("ignore:topup=marginal fits")
def test_no_method_depends_on_the_placement(settings: dict[str, Any], tmp_path: Path) -> None:
    resident = results_of(build("llama"), **settings)
    assert_equal(results_of(build_placed("llama", "disk", tmp_path), **settings), resident)


@pytest.mark.parametrize("offload", ["blocks", "devices", "disk"])
def test_a_pruned_model_is_written_block_by_block(offload: str, tmp_path: Path) -> None:
    model, resident = build_placed("opt", offload, tmp_path / "dense"), tiny_opt()
    masks = prune(model, TOKENS, topup="uniform", batch=2).masks
    prune(resident, TOKENS, topup="uniform", batch=2)
    (tmp_path / "sparse").mkdir()
    save_offloaded(model, tmp_path / "sparse")
    reloaded = OPTForCausalLM.from_pretrained(tmp_path / "sparse")
    assert reloaded.dtype == resident.dtype
    for name, weight in resident.state_dict().items():
        assert torch.equal(reloaded.state_dict()[name], weight), name
    assert bool((reloaded.model.decoder.layers[3].fc1.weight[masks["3.fc1"]] == 0).all())
    shards = sorted(path.name for path in (tmp_path / "sparse").glob("*.safetensors"))
    assert shards[0] == "model-00001-of-00005.safetensors"
    assert len(shards) == 5


def test_the_checkpoint_on_disk_is_not_changed(tmp_path: Path) -> None:
    model = build_placed("llama", "disk", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    prune(model, TOKENS, topup="uniform")
    assert {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == before


def test_a_model_is_restored_after_offloading() -> None:
    offloaded, resident = build("llama"), build("llama")
    prune(offloaded, TOKENS, topup=SHORT_SEARCH, offload="blocks", batch=2)
    prune(resident, TOKENS, topup=SHORT_SEARCH, batch=2)
    assert not placement_of(offloaded).offloads
    assert torch.equal(offloaded(TOKENS).logits, resident(TOKENS).logits)


def test_all_weights_can_be_read(tmp_path: Path) -> None:
    resident = tiny_opt()
    prune(resident, TOKENS, topup="uniform", batch=2)
    for offload in ("none", "blocks", "devices", "disk"):
        model = build_placed("opt", offload, tmp_path / offload)
        prune(model, TOKENS, topup="uniform", batch=2)
        names = []
        for name, weight in weights_of(model):
            assert torch.equal(weight, resident.state_dict()[name]), name
            names.append(name)
        assert names == list(resident.state_dict())


@pytest.mark.parametrize("offload", ["blocks", "disk"])
def test_stored_masks_are_applied_on_resume(offload: str, tmp_path: Path) -> None:
    files, resident = RunFiles(tmp_path, "0"), build("llama")
    result = prune(resident, TOKENS, topup="uniform")
    assert isinstance(result.masks, PackedMasks)
    files.keep_masks(result.masks)
    model = build_placed("llama", offload, tmp_path / "dense")
    decoder = DecoderModel(model)
    stored = files.masks(decoder)
    assert stored is not None
    assert stored.sparsity == result.sparsity
    apply_masks(decoder, stored)
    assert torch.equal(model(TOKENS).logits, resident(TOKENS).logits)


def test_the_whole_model_computes_the_same_logits(tmp_path: Path) -> None:
    """Zero-shot scoring and generation run the whole model and ignore its placement."""
    expected = build("llama")(TOKENS).logits
    for offload in ("blocks", "disk"):
        model = build_placed("llama", offload, tmp_path / offload)
        assert isinstance(placement_of(model), Offloaded)
        assert torch.equal(model(TOKENS).logits, expected)
        assert torch.equal(model(TOKENS).logits, expected)
