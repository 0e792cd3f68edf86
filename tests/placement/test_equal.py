"""Wherever blocks wait, a run finds the same plan, masks and perplexities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, OPTConfig, OPTForCausalLM, PreTrainedModel

from neuroal.api import prune
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.adapter import DecoderModel
from neuroal.models.place import open_on_disk, place_on_host, save_offloaded, weights_of
from neuroal.placement.base import placement_of
from neuroal.placement.offloaded import Offloaded
from neuroal.pruners.masks import digest
from neuroal.pruners.packed import PackedMasks
from neuroal.pruning import Pruned
from neuroal.records.stages import Stages
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from tests.tiny import random_tokens, tiny_llama

CPU = torch.device("cpu")
TOKENS = random_tokens(6, 24)
SHORT_SEARCH = NeuroAL(block_candidates=[0.05, 0.2], row_candidates=[0.0, 0.1])


def tiny_opt() -> PreTrainedModel:
    """Biases, learned positions, and embeddings that are the head's weights too."""
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


def make(family: str) -> PreTrainedModel:
    return tiny_llama().model if family == "llama" else tiny_opt()


def placed(family: str, offload: str, folder: Path) -> PreTrainedModel:
    """The same model with its blocks in one of the three places."""
    model = make(family)
    if offload == "blocks":
        place_on_host(model, CPU)
    if offload == "disk":
        model.save_pretrained(folder, max_shard_size="20KB")
        model = open_on_disk(folder, AutoConfig.from_pretrained(folder), None, CPU, folder)
    return model


def found(model: PreTrainedModel, **settings: Any) -> dict[str, Any]:
    """Everything that a placement must not change."""
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
@pytest.mark.parametrize("offload", ["blocks", "disk"])
def test_search_and_pruning(family: str, offload: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"topup": SHORT_SEARCH, "pruner": "wanda"}
    resident = found(make(family), **settings)
    assert_equal(found(placed(family, offload, tmp_path), **settings), resident)


@pytest.mark.parametrize(
    "settings",
    [
        {"pruner": "magnitude", "topup": "alpha"},
        {"pruner": "sparsegpt", "topup": "owl"},
        {"pruner": "multiflow", "topup": "uniform", "refine": "dsnot"},
        {"pruner": "wanda", "topup": NeuroAL(block_candidates=[0.1], criterion="output_kl")},
        {"topup": EqualMarginals(linear_iterations=2, row_iterations=2, windows=2)},
    ],
    ids=lambda settings: f"{settings.get('pruner')}",
)
@pytest.mark.filterwarnings("ignore:topup=marginal fits")
def test_every_way_of_looking_at_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    resident = found(make("llama"), **settings)
    assert_equal(found(placed("llama", "disk", tmp_path), **settings), resident)


@pytest.mark.parametrize("offload", ["blocks", "disk"])
def test_a_pruned_model_is_written_block_by_block(offload: str, tmp_path: Path) -> None:
    model, wanted = placed("opt", offload, tmp_path / "dense"), tiny_opt()
    masks = prune(model, TOKENS, topup="uniform", batch=2).masks
    prune(wanted, TOKENS, topup="uniform", batch=2)
    (tmp_path / "sparse").mkdir()
    save_offloaded(model, tmp_path / "sparse")
    again = OPTForCausalLM.from_pretrained(tmp_path / "sparse")
    assert again.dtype == wanted.dtype
    for name, weight in wanted.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    assert bool((again.model.decoder.layers[3].fc1.weight[masks["3.fc1"]] == 0).all())
    shards = sorted(path.name for path in (tmp_path / "sparse").glob("*.safetensors"))
    assert shards[0] == "model-00001-of-00005.safetensors"
    assert len(shards) == 5


def test_the_checkpoint_on_disk_is_left_alone(tmp_path: Path) -> None:
    model = placed("llama", "disk", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    prune(model, TOKENS, topup="uniform")
    assert {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == before


def test_a_model_comes_back_from_offloading() -> None:
    offloaded, wanted = make("llama"), make("llama")
    prune(offloaded, TOKENS, topup=SHORT_SEARCH, offload="blocks", batch=2)
    prune(wanted, TOKENS, topup=SHORT_SEARCH, batch=2)
    assert not placement_of(offloaded).offloads
    assert torch.equal(offloaded(TOKENS).logits, wanted(TOKENS).logits)


def test_all_weights_can_be_looked_at(tmp_path: Path) -> None:
    """By those who tell models apart, say."""
    wanted = tiny_opt()
    prune(wanted, TOKENS, topup="uniform", batch=2)
    for offload in ("none", "blocks", "disk"):
        model = placed("opt", offload, tmp_path / offload)
        prune(model, TOKENS, topup="uniform", batch=2)
        names = []
        for name, weight in weights_of(model):
            assert torch.equal(weight, wanted.state_dict()[name]), name
            names.append(name)
        assert names == list(wanted.state_dict())


@pytest.mark.parametrize("offload", ["blocks", "disk"])
def test_masks_that_were_kept_are_put_back(offload: str, tmp_path: Path) -> None:
    stages, wanted = Stages(tmp_path, "0"), make("llama")
    result = prune(wanted, TOKENS, topup="uniform")
    assert isinstance(result.masks, PackedMasks)
    stages.keep_masks(Pruned(result.masks))
    model = placed("llama", offload, tmp_path / "dense")
    restored = stages.restore(DecoderModel(model))
    assert restored is not None
    assert restored.sparsity == result.sparsity
    assert torch.equal(model(TOKENS).logits, wanted(TOKENS).logits)


def test_the_model_computes_as_a_whole(tmp_path: Path) -> None:
    """Zero-shot scoring and generation know nothing of placements."""
    wanted = make("llama")(TOKENS).logits
    for offload in ("blocks", "disk"):
        model = placed("llama", offload, tmp_path / offload)
        assert isinstance(placement_of(model), Offloaded)
        assert torch.equal(model(TOKENS).logits, wanted)
        assert torch.equal(model(TOKENS).logits, wanted)
