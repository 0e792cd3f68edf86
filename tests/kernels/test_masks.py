"""Packed masks equal NumPy's; a pruned weight that disagrees with its mask is noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroal.kernels import masks
from tests.kernels.interpreter import needs_triton, run_in_interpreter

KERNELS = """
from neuroal.kernels import masks_triton
from tests.kernels.test_masks import check

masks_triton.BYTES, masks_triton.ENTRIES = 16, 64
check("cpu", masks_triton)
"""
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def check(device: str, functions: object = masks) -> None:
    """Check packing and comparing for several shapes and types on `device`."""
    generator = torch.Generator().manual_seed(0)
    for rows, cols in ((1, 1), (3, 8), (7, 33), (20, 40)):
        mask = torch.rand(rows, cols, generator=generator) < 0.6
        bits, zeros = functions.pack_bits(mask.to(device))  # type: ignore[attr-defined]
        assert np.array_equal(bits.cpu().numpy(), np.packbits(mask.numpy()))
        assert int(zeros) == int(mask.sum())
        check_several(device, functions, torch.rand(3, rows, cols, generator=generator) < 0.6)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            weight = torch.randn(rows, cols, generator=generator).to(dtype)
            pruned = weight.masked_fill(mask, 0)
            for changed in range(3):
                if changed:  # an entry that should be 0, or one that should be the weight's
                    places = (mask == (changed == 1)).nonzero()
                    if not len(places):
                        continue
                    pruned = weight.masked_fill(mask, 0)
                    pruned[tuple(places[-1])] = 3.0
                arguments = (pruned.to(device), weight.to(device), mask.to(device))
                assert bool(functions.is_masked(*arguments)) == (not changed)  # type: ignore[attr-defined]


def check_several(device: str, functions: Any, several: Tensor) -> None:
    """Check that masks (n, rows, cols) are packed and compared as each of them is."""
    bits, zeros = functions.pack_bits(several.to(device))
    assert torch.equal(zeros.cpu(), several.sum((1, 2)))
    for mask, packed in zip(several, bits.cpu(), strict=True):
        assert np.array_equal(packed.numpy(), np.packbits(mask.numpy()))
    weight = torch.ones(several.shape)
    pruned = weight.masked_fill(several, 0)
    pruned[1, -1, -1] = 3.0
    agree = functions.is_masked(pruned.to(device), weight.to(device), several.to(device))
    assert agree.tolist() == [True, False, True]


@pytest.mark.parametrize("device", DEVICES)
def test_masks_are_packed_and_compared(device: str) -> None:
    check(device)


@needs_triton
def test_kernels_equal_the_reference_in_the_interpreter() -> None:
    run_in_interpreter(KERNELS)
