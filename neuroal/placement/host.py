"""Blocks that wait in pinned host memory."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from weakref import finalize

import torch
from torch import Tensor

from neuroal.placement.layout import Layout
from neuroal.placement.offloaded import Source

PAGE = 4096
PORTABLE = 1
"""``cudaHostRegisterPortable``: pinned for all devices."""


class HostBlocks(Source):
    """The matrices of each block in one stretch of host memory; parameters at rest point there.

    The memory is pinned in place: PyTorch's own pinned allocations round up to powers of two,
    which would waste up to half of it.

    Args:
        layouts: of the blocks, whose parameters are on the host.
        device: for which to pin.
    """

    immediate = True

    def __init__(self, layouts: Sequence[Layout], device: torch.device) -> None:
        self._layouts = layouts
        self._buffers: list[Tensor] = []
        pinned = device.type == "cuda"
        for layout in layouts:
            buffer = page_aligned(layout.size)
            for name, view in layout.views(buffer).items():
                view.copy_(layout.tensor(name))
            layout.point(layout.views(buffer))
            self._buffers.append(buffer)
            pinned = pinned and pin(self, buffer, device)
        if device.type == "cuda" and not pinned:
            warnings.warn(
                "offload=blocks: host memory cannot be pinned (see ulimit -l); copies will be slow",
                stacklevel=2,
            )

    def read(self, index: int) -> Tensor:
        return self._buffers[index]

    def write(self, index: int, data: Tensor) -> None:
        self._buffers[index].copy_(data)

    def resting(self, index: int) -> dict[str, Tensor]:
        return self._layouts[index].views(self._buffers[index])


def page_aligned(size: int) -> Tensor:
    """`size` bytes on memory pages of their own."""
    room = torch.empty(-(-size // PAGE) * PAGE + PAGE, dtype=torch.uint8)
    skipped = -room.data_ptr() % PAGE
    return room[skipped : skipped + size]


def pin(owner: object, buffer: Tensor, device: torch.device) -> bool:
    """Page-lock `buffer` for as long as `owner` lives; False if the system refuses."""
    size = -(-buffer.numel() // PAGE) * PAGE
    if size == 0:
        return True
    runtime = torch.cuda.cudart()
    with torch.cuda.device(device):
        if int(runtime.cudaHostRegister(buffer.data_ptr(), size, PORTABLE)) != 0:
            with suppress(RuntimeError):  # or the next kernel would be blamed for this error
                torch.zeros(1, device=device)
            return False

    def release(held: Tensor) -> None:
        runtime.cudaHostUnregister(held.data_ptr())

    finalize(owner, release, buffer)
    return True
