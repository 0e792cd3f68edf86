"""Masks: which weights of a linear are pruned. In every mask, True = pruned."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from neuroal.kernels.selection import lowest_per_row

__all__ = ["digest", "lowest_overall", "lowest_per_row", "pack", "unpack"]


def lowest_overall(scores: Tensor, count: int) -> Tensor:
    """Mask of the `count` lowest entries of a whole matrix, ties in row-major order."""
    flat = scores.reshape(1, -1)
    return lowest_per_row(flat, torch.tensor([count])).view_as(scores)


def digest(mask: Tensor) -> str:
    """SHA-256 (hex) of the packed bits of `mask`, row-major."""
    return hashlib.sha256(pack(mask).tobytes()).hexdigest()


def pack(mask: Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """The bits of `mask`, row-major, eight a byte (``numpy.packbits``)."""
    return np.packbits(mask.cpu().numpy())


def unpack(bits: np.ndarray[tuple[int], np.dtype[np.uint8]], shape: tuple[int, int]) -> Tensor:
    """The mask that `pack` packed."""
    flat = np.unpackbits(bits, count=shape[0] * shape[1])
    return torch.from_numpy(flat.astype(bool)).view(shape)
