"""Matrices stored as a bit mask and their nonzero values, in the layout of `compressed-tensors`.

Its format ``sparse-bitmask`` stores a matrix ``X.weight`` as four tensors: ``X.shape`` (2,) int64,
``X.compressed`` (nonzeros,) with the values row by row, ``X.bitmask`` (rows, ceil(cols / 8)) uint8
with the first column in the lowest bit, and ``X.row_offsets`` (rows,) int64, the position of the
first value of each row.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

PARTS = ("shape", "compressed", "bitmask", "row_offsets")
"""Suffixes of the four tensors."""
SUFFIX = ".weight"
"""End of the name of a tensor that can be compressed."""


def compress(matrix: Tensor) -> dict[str, Tensor]:
    """Return the four parts of `matrix`: (rows, cols), by suffix."""
    matrix = matrix.detach().cpu()
    mask = matrix != 0
    counts = mask.sum(dim=-1)
    bits = np.packbits(mask.numpy(), axis=-1, bitorder="little")
    return {
        "shape": torch.tensor(matrix.shape),
        "compressed": matrix[mask],
        "bitmask": torch.from_numpy(bits),
        "row_offsets": torch.cumsum(counts, 0) - counts,
    }


def decompress(parts: Mapping[str, Tensor]) -> Tensor:
    """Return the matrix (rows, cols) of four parts.

    Raises:
        ValueError: the parts contradict one another.
    """
    rows, cols = parts["shape"].tolist()
    if tuple(parts["bitmask"].shape) != (rows, -(-cols // 8)):
        raise ValueError(f"its bit mask is not that of {rows}×{cols} weights")
    bits = np.unpackbits(parts["bitmask"].numpy(), axis=-1, count=cols, bitorder="little")
    mask = torch.from_numpy(bits).bool()
    if int(mask.sum()) != parts["compressed"].numel():
        raise ValueError("its bit mask does not count its values")
    matrix = torch.zeros((rows, cols), dtype=parts["compressed"].dtype)
    matrix[mask] = parts["compressed"]
    return matrix


def is_smaller(matrix: Tensor) -> bool:
    """Return whether the parts of `matrix` take fewer bytes than the matrix itself."""
    if matrix.dim() != 2 or not matrix.is_floating_point() or matrix.element_size() < 2:
        return False
    rows, cols = matrix.shape
    values = int(torch.count_nonzero(matrix)) * matrix.element_size()
    return values + rows * (-(-cols // 8) + 8) + 16 < matrix.nbytes
