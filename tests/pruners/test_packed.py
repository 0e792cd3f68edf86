"""Packed masks equal the masks that were added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroal.kernels.masks import pack_bits
from neuroal.pruners.packed import PackedMasks
from tests.masks import digest, pack


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), cols=st.integers(1, 19), seed=st.integers(0, 99))
def test_packed_masks_equal_the_masks_that_were_added(rows: int, cols: int, seed: int) -> None:
    mask = torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < 0.6
    assert pack_bits(mask)[0].tolist() == pack(mask).tolist()
    masks = PackedMasks()
    masks.add("0.a", mask)
    masks.add("1.a", ~mask)
    assert torch.equal(masks["0.a"], mask)
    assert torch.equal(masks["1.a"], ~mask)
    assert masks.digests() == {key: digest(mask) for key, mask in masks.items()}
    assert masks.sparsities()["0.a"] == float(mask.double().mean())
    assert masks.sparsity == 0.5


def test_packed_bits_from_a_file_count_as_a_mask() -> None:
    mask = torch.tensor([[True, False, True], [True, True, False]])
    masks = PackedMasks()
    masks.add_bits("0.a", pack_bits(mask)[0], (2, 3))
    assert torch.equal(masks["0.a"], mask)
    assert masks.sparsities() == {"0.a": 4 / 6}
    assert masks.sparsity == 4 / 6


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda masks: masks.sparsity, 0.75),
        (lambda masks: masks.sparsities(), {"0.a": 1.0, "0.b": 0.5}),
        (lambda masks: masks["0.b"].tolist(), [[True, False]]),
    ],
    ids=["sparsity", "sparsities", "mask"],
)
@pytest.mark.parametrize("stay", [False, True], ids=["copied", "on the GPU"])
def test_masks_that_are_not_yet_on_the_host_are_brought_there(
    stay: bool,
    read: Callable[[PackedMasks], Any],
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = PackedMasks()
    with monkeypatch.context() as patch:  # as on a GPU, whose copies are awaited later
        patch.setattr(PackedMasks, "_settle", lambda *_: None)
        patch.setattr(PackedMasks, "_stays", lambda *_: stay)
        masks.add("0.a", torch.tensor([[True, True]]))
        masks.add("0.b", torch.tensor([[True, False]]))
    assert read(masks) == expected


def test_prescribed_masks_are_compared_in_words() -> None:
    masks = PackedMasks()
    assert masks.comparison(8) == ""
    masks.differing = 3
    assert masks.comparison(8) == "; pruning freely would choose 3 of their 8 entries differently"
