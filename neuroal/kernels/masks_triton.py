"""GPU kernels of `neuroal.kernels.masks`: one pass over their inputs, without temporaries."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BYTES = 1024
"""Bytes of packed bits that a program writes."""
ENTRIES = 4096
"""Entries that a program compares."""


@triton.jit  # type: ignore[untyped-decorator]
def _pack(  # type: ignore[no-untyped-def]
    mask,
    bits,
    total,
    size,
    BYTES: tl.constexpr,  # noqa: N803
):
    which = tl.program_id(1).to(tl.int64)
    mask += which * size
    bits += which * ((size + 7) // 8)
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)[None, :]
    place = byte[:, None] * 8 + bit
    entries = tl.load(mask + place, mask=place < size, other=0).to(tl.int32)
    packed = tl.sum(entries << (7 - bit), 1)
    tl.store(bits + byte, packed.to(tl.uint8), mask=byte * 8 < size)
    tl.atomic_add(total + which, tl.sum(tl.sum(entries, 1), 0).to(tl.int64))


@triton.jit  # type: ignore[untyped-decorator]
def _differs(  # type: ignore[no-untyped-def]
    pruned,
    weight,
    mask,
    differs,
    size,
    ENTRIES: tl.constexpr,  # noqa: N803
):
    which = tl.program_id(1).to(tl.int64)
    pruned += which * size
    weight += which * size
    mask += which * size
    place = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    inside = place < size
    masked = tl.load(mask + place, mask=inside, other=1) != 0
    expected = tl.load(weight + place, mask=inside & (masked == 0), other=0.0)
    value = tl.load(pruned + place, mask=inside, other=0.0)
    wrong = tl.sum((value != expected).to(tl.int32), 0)
    tl.atomic_max(differs + which, wrong, mask=wrong > 0)


def pack_bits(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `neuroal.kernels.masks.pack_bits`."""
    several, size = mask.shape[:-2], mask.shape[-2:].numel()
    width = triton.cdiv(size, 8)
    bits = torch.empty((*several, width), dtype=torch.uint8, device=mask.device)
    total = torch.zeros(several, dtype=torch.int64, device=mask.device)
    with torch.cuda.device_of(mask):
        _pack[(triton.cdiv(width, BYTES), several.numel())](
            mask.view(torch.int8), bits, total, size, BYTES=BYTES
        )
    return bits, total


def is_masked(pruned: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Compute `neuroal.kernels.masks.is_masked`."""
    several, size = mask.shape[:-2], mask.shape[-2:].numel()
    differs = torch.zeros(several, dtype=torch.int32, device=mask.device)
    with torch.cuda.device_of(mask):
        _differs[(triton.cdiv(size, ENTRIES), several.numel())](
            pruned, weight, mask.view(torch.int8), differs, size, ENTRIES=ENTRIES
        )
    return differs == 0
