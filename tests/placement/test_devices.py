"""Blocks in the memory of several devices."""

from __future__ import annotations

import pytest
import torch

from neuroal.api import prune
from neuroal.errors import UserError
from neuroal.models.offload import place_on_devices
from neuroal.placement.base import placement_of
from neuroal.placement.devices import DeviceBlocks, capacity, homes
from neuroal.placement.offloaded import Offloaded
from neuroal.topups.neuroal import NeuroAL
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")


def test_other_devices_are_filled_before_the_one_that_computes() -> None:
    assert homes([10] * 6, [None, 25, 30]) == [2, 1, 2, 1, 2, 0]
    assert homes([10] * 4, [None, None, None]) == [1, 2, 1, 2]
    assert homes([10] * 2, [0, 25]) == [1, 1]
    assert homes([10], [None]) == [0]


def test_blocks_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^offload=devices: the blocks take 5\.0 GiB, .* 3\.0 GiB"):
        homes([2**30] * 5, [2**30, 2**30, 2**30])


def test_a_cpu_has_no_limit() -> None:
    assert capacity(CPU, first=True) is None


def test_idle_blocks_are_on_the_devices_and_return_to_the_model() -> None:
    model, tokens = tiny_llama().model, random_tokens(1, 8)
    expected = model(tokens).logits
    placement = place_on_devices(model, [CPU, CPU])
    assert isinstance(placement, Offloaded)
    assert isinstance(placement.source, DeviceBlocks)
    assert torch.equal(model(tokens).logits, expected)


def test_a_model_in_memory_is_spread_over_devices_and_restored() -> None:
    tokens = random_tokens(4, 16)
    results = []
    for options in ({}, {"offload": "devices", "devices": 2, "device": "cpu"}):
        model = tiny_llama().model
        topup = NeuroAL(block_candidates=[0.05, 0.1], row_candidates=[0.0, 0.1])
        result = prune(model, tokens, topup=topup, sparsity=0.6, batch=2, **options)
        assert not placement_of(model).offloads
        results.append((result.report, model(tokens).logits))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_one_device_is_refused() -> None:
    with pytest.raises(UserError, match=r"^offload=devices: .* but devices=1"):
        prune(tiny_llama().model, random_tokens(2, 8), offload="devices", device="cpu")
