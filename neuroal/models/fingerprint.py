"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from neuroal.models.place import weights_of

SAMPLES = 1024
"""Entries of each tensor that are hashed as they are; all of them are summed."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def fingerprint(model: Any) -> str:
    """SHA-256 over all parameters and buffers: name, shape, dtype, the sum of all bit patterns
    (which any single change alters) and every n-th bit pattern.

    Weights that wait elsewhere are fetched, block by block.
    """
    digest = hashlib.sha256()
    for name, tensor in weights_of(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if tensor.numel():
            digest.update(_bits(tensor))
    return digest.hexdigest()


def _bits(tensor: Tensor) -> bytes:
    bits = tensor.detach().reshape(-1).view(INTEGERS[tensor.element_size()])
    total = int(bits.sum(dtype=torch.int64))
    sample = bits[:: max(1, len(bits) // SAMPLES)].cpu().numpy().tobytes()
    return f"{total}\n".encode() + sample
