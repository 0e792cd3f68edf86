"""Blocks on disk: pruned ones are read from a temporary folder, and never from the checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from neuroal.models.offload import open_on_disk
from neuroal.placement.base import placement_of
from tests.small_models import tiny_llama


def test_a_pruned_block_that_vanished_is_an_error_and_not_the_unpruned_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_llama().model.save_pretrained(folder)
    config, scratch = AutoConfig.from_pretrained(folder), tmp_path / "run.offload"
    model = open_on_disk(folder, config, torch.float32, torch.device("cpu"), scratch)
    source = placement_of(model).source
    pruned = torch.zeros_like(source.read(1))
    source.write(1, pruned)
    assert torch.equal(source.read(1), pruned)
    (temporary,) = tmp_path.glob(".run.offload.*")
    shutil.rmtree(temporary)
    with pytest.raises(FileNotFoundError, match="a pruned block was deleted"):
        source.read(1)
    assert source.read(0).any()
