"""Copies between a GPU and the host that wait for the GPU seldom or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor on the host, started at construction and awaited by `get`.

    `Tensor.cpu` waits for all work in the GPU's queue, and the GPU then idles until the host has
    launched more. `get` waits only for the work that was queued before the copy. A CPU tensor is
    not copied.
    """

    def __init__(self, source: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if source.device.type != "cuda":
            self._copy = source
            return
        self._copy = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        self._copy.copy_(source, non_blocking=True)
        self._event = torch.cuda.current_stream(source.device).record_event()

    def get(self) -> Tensor:
        """Wait for the copy and return it."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
            self._copy = self._copy.clone()  # pinned memory is scarce, so release it early
        return self._copy


def moved_together(vectors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return `vectors` (any length each, one dtype and device) on `device`, in one copy."""
    joined = torch.cat(list(vectors.values())).to(device)
    return dict(zip(vectors, joined.split([len(part) for part in vectors.values()]), strict=True))
