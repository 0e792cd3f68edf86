"""Blocks that are offloaded to pinned host memory."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from weakref import finalize

import torch
from torch import Tensor

from neuroal.placement.layout import Layout
from neuroal.placement.offloaded import BufferedBlocks

PAGE = 4096
"""Size of a memory page, in bytes."""
PORTABLE = 1
"""``cudaHostRegisterPortable``: pin the memory for all devices."""


class HostBlocks(BufferedBlocks):
    """Source that keeps the matrices of each block in one host buffer, pinned for a GPU."""

    def __init__(self, layouts: Sequence[Layout], device: torch.device) -> None:
        super().__init__(layouts)
        pinned = device.type == "cuda"
        for layout in layouts:
            # Pinned in place: PyTorch's pinned allocations round up to powers of two, which
            # would waste up to half of the memory.
            buffer = page_aligned(layout.size)
            self.fill(buffer)
            pinned = pinned and pin(self, buffer, device)
        if device.type == "cuda" and not pinned:
            warnings.warn(
                "offload=blocks: host memory cannot be pinned, so copies are slow; raise ulimit -l",
                stacklevel=2,
            )


def page_aligned(size: int) -> Tensor:
    """Allocate `size` bytes that share no memory page with other data: (size,) uint8."""
    memory = torch.empty(-(-size // PAGE) * PAGE + PAGE, dtype=torch.uint8)
    offset = -memory.data_ptr() % PAGE
    return memory[offset : offset + size]


def pin(owner: object, buffer: Tensor, device: torch.device) -> bool:
    """Pin a `page_aligned` buffer until `owner` is garbage-collected; return whether it worked."""
    size = -(-buffer.numel() // PAGE) * PAGE
    if size == 0:
        return True
    runtime = torch.cuda.cudart()
    with torch.cuda.device(device):
        if int(runtime.cudaHostRegister(buffer.data_ptr(), size, PORTABLE)) != 0:
            with suppress(RuntimeError):  # clears the error, or the next kernel would raise it
                torch.zeros(1, device=device)
            return False

    def release(pinned: Tensor) -> None:
        runtime.cudaHostUnregister(pinned.data_ptr())

    finalize(owner, release, buffer)
    return True
