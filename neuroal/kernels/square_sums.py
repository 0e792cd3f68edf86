"""Sums of squares over the tokens of every window.

The PyTorch implementation defines the results of the GPU kernel in `square_sums_triton`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroal.kernels.selection import has_triton


def square_sums(x: Tensor) -> Tensor:
    """Sum x² over tokens in float32: contiguous (windows, tokens, cols) → (windows, cols).

    The sums of a window do not depend on the other windows.
    """
    if x.is_cuda and x.numel() and has_triton():
        from neuroal.kernels import square_sums_triton

        return square_sums_triton.square_sums(x)
    return torch.stack([window.float().square().sum(0) for window in x])
