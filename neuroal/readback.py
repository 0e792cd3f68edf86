"""Tensors on their way to the host while the GPU goes on computing."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """A copy of a tensor on the host, begun now and waited for when it is read.

    Reading a tensor of a GPU in the usual way waits for all the work in the GPU's queue, which
    then stands empty until the host has launched more. This waits for no more than what the
    tensor is made of. On a CPU it is the tensor itself.
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
        """The copy."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
            self._copy = self._copy.clone()  # page-locked memory should not be held for long
        return self._copy
