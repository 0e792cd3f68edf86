"""Packed masks equal the masks that were added."""

from __future__ import annotations

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
