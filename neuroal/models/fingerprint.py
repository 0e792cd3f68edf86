"""Hash of the weights of a model."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from neuroal.kernels.selection import INTEGERS
from neuroal.models.offload import weights_of

SAMPLES = 1024
"""Minimum number of entries hashed individually per tensor; smaller tensors are hashed whole."""


@torch.no_grad()
def fingerprint(model: Any) -> str:
    """Return the SHA-256 (hex) of all parameters and buffers of `model`.

    The hash covers each tensor's name, shape and dtype, the sum of its bit patterns (any single
    change alters it), and every n-th bit pattern.
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
