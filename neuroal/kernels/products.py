"""Products with a fixed square matrix, with float16 operands on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def operand(matrix: Tensor, *, exact: bool = False) -> Tensor:
    """Return `matrix` (cols, cols) float32 as `product` takes it: float16 on a GPU unless `exact`.

    Its entries must lie in [−1, 1]. Float16 then has the 10 bits of TF32, and is twice as fast. No
    global setting of PyTorch is needed, which other threads would see.
    """
    return matrix.half() if matrix.is_cuda and not exact else matrix


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """Return x·M in float32, with x (rows, cols) float32 and M from `operand`.

    For a float16 matrix, every row of x is scaled to [−1, 1] and rounded to float16. The products
    are summed in float32.
    """
    if matrix.dtype == torch.float32:
        return x @ matrix
    scale = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True)
    scale.clamp_(min=torch.finfo(torch.float32).tiny)
    rounded = torch.div(x, scale, out=torch.empty_like(x, dtype=torch.float16))
    if x.is_cuda:
        return torch.mm(rounded, matrix, out_dtype=torch.float32).mul_(scale)
    return (rounded.float() @ matrix.float()).mul_(scale)
