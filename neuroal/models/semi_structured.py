"""Linears with 2:4 zeros, and the kernels of NVIDIA GPUs that skip them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from neuroal.models.adapter import DecoderModel

CAPABILITY = (8, 0)
"""Least compute capability with kernels for 2:4: Ampere."""
MULTIPLE = 64
"""Rows and columns must be multiples of this for the kernels of float16 and bfloat16."""


def has_two_of_four(decoder: DecoderModel) -> bool:
    """Return whether every four consecutive weights of all prunable linears have two zeros."""
    return all(_is_two_of_four(linear.weight) for linear in decoder)


def _is_two_of_four(weight: Tensor) -> bool:
    rows, cols = weight.shape
    if cols % 4:
        return False
    return bool(((weight != 0).view(rows, cols // 4, 4).sum(-1) <= 2).all())


def why_no_kernels(decoder: DecoderModel) -> str | None:
    """Return why 2:4 kernels cannot run a model with 2:4 zeros; None if they can."""
    device, dtype = decoder.device, decoder.model.dtype
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        return "they need an NVIDIA GPU of compute capability 8.0 or higher"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"they need float16 or bfloat16, not {str(dtype).removeprefix('torch.')}"
    if not _suitable(decoder):
        return f"no linear has rows and columns that are multiples of {MULTIPLE}"
    return None


def use_kernels(decoder: DecoderModel) -> int:
    """Replace the weights by 2:4 tensors, whose products run on 2:4 kernels; return how many."""
    modules = _suitable(decoder)
    for module in modules:
        module.weight = nn.Parameter(to_sparse_semi_structured(module.weight), requires_grad=False)
    return len(modules)


def _suitable(decoder: DecoderModel) -> list[nn.Linear]:
    return [
        linear.module
        for linear in decoder
        if isinstance(linear.module, nn.Linear)
        and linear.rows % MULTIPLE == 0
        and linear.cols % MULTIPLE == 0
    ]
