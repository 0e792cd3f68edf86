"""Packed masks and their digests, as in records and golden results."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor


def pack(mask: Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the bits of `mask`, row-major, eight per byte."""
    return np.packbits(mask.cpu().numpy())


def digest(mask: Tensor) -> str:
    """Return the SHA-256 (hex) of the packed bits of `mask`."""
    return hashlib.sha256(pack(mask).tobytes()).hexdigest()
