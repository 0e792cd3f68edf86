"""Blocks that are offloaded to the memory of several devices."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neuroal.errors import UserError
from neuroal.placement.layout import Layout
from neuroal.placement.offloaded import BufferedBlocks

SHARE = 0.9
"""Share of the free memory of a device that only stores blocks which blocks may take."""
FIRST_SHARE = 0.7
"""The same for the device that computes; the rest is for activations."""


class DeviceBlocks(BufferedBlocks):
    """Source that keeps the matrices of each block in the memory of one of several devices.

    The first device computes. The others share the blocks, as many as fit there, and the first
    one stores the rest. A block is copied to the first device when it is needed.

    Args:
        layouts: layout of each block.
        devices: the devices, the one that computes first.

    Raises:
        UserError: the blocks do not fit into the memory of the devices.
    """

    def __init__(self, layouts: Sequence[Layout], devices: Sequence[torch.device]) -> None:
        super().__init__(layouts)
        sizes = [layout.size for layout in layouts]
        capacities = [capacity(device, first=not n) for n, device in enumerate(devices)]
        for layout, home in zip(layouts, homes(sizes, capacities), strict=True):
            self.fill(torch.empty(layout.size, dtype=torch.uint8, device=devices[home]))


def capacity(device: torch.device, *, first: bool) -> int | None:
    """Return the number of bytes that blocks may take on `device`; None: no limit is known."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int((FIRST_SHARE if first else SHARE) * free)


def homes(sizes: Sequence[int], capacities: Sequence[int | None]) -> list[int]:
    """Return the index of the device that stores each block.

    Each block goes to the storing device with the most room left, so that all are used alike, and
    to device 0 if it fits on none of them.

    Raises:
        UserError: the blocks do not fit.
    """
    room = [float("inf") if limit is None else limit for limit in capacities]
    taken = [0] * len(capacities)
    homes = list[int]()
    for size in sizes:
        fitting = [n for n in range(len(room)) if taken[n] + size <= room[n]]
        if not fitting:
            needed, present = sum(sizes), sum(limit or 0 for limit in capacities)
            raise UserError(
                f"offload=devices: the blocks take {needed / 2**30:.1f} GiB, and the devices have "
                f"{present / 2**30:.1f} GiB for them; use more devices, or offload=blocks"
            )
        home = max(fitting, key=lambda n: (n > 0, room[n] - taken[n], -taken[n]))
        homes.append(home)
        taken[home] += size
    return homes
