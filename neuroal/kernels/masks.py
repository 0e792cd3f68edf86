"""Pack masks into bits, and compare pruned weights with their masks.

These PyTorch implementations define the results of the GPU kernels in `masks_triton`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuroal.kernels.selection import has_triton, largest, largest_of_each, zeroed


def pack_bits(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``numpy.packbits`` of the row-major flattened `mask`, and its number of True entries.

    Both are computed on the device of `mask` (rows, cols): (bytes,) uint8, and () int64. Of n masks
    (n, rows, cols), the results are (n, bytes) and (n,).
    """
    if _has_kernel(mask):
        from neuroal.kernels import masks_triton

        return masks_triton.pack_bits(mask)
    bits = np.packbits(mask.flatten(-2).cpu().numpy(), axis=-1)
    return torch.from_numpy(bits).to(mask.device), mask.sum((-2, -1))


def is_masked(pruned: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return whether finite `pruned` is `weight` with 0 where `mask` is True: () bool.

    Args:
        pruned: (rows, cols), or (n, rows, cols) for n results.
        weight: finite, of the same shape and type.
        mask: of the same shape.
    """
    if _has_kernel(mask) and pruned.is_contiguous() and weight.is_contiguous():
        from neuroal.kernels import masks_triton

        return masks_triton.is_masked(pruned, weight, mask)
    difference = pruned - zeroed(weight, mask)  # faster on a CPU than ``==``
    return (largest(difference) if mask.dim() == 2 else largest_of_each(difference)) == 0


def _has_kernel(mask: Tensor) -> bool:
    return mask.is_cuda and mask.is_contiguous() and mask.numel() > 0 and has_triton()
