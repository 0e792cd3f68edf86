"""Hidden states of many windows between two blocks, on the device or on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuroal.placement.copy_stream import CopyStream


class HiddenStates(ABC):
    """Batches (windows, seqlen, hidden) that are read on the device and replaced one at a time."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = list(parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Tensor]:
        return self.starting(0)

    @abstractmethod
    def starting(self, first: int) -> Iterator[Tensor]:
        """Yield the batches from index `first` on, as device tensors."""

    @abstractmethod
    def put(self, index: int, part: Tensor) -> None:
        """Replace batch `index` by `part`, a device tensor of the same shape."""

    def split(self, batch: int) -> None:
        """Split each batch into batches of at most `batch` windows."""
        self._parts = [piece for part in self._parts for piece in part.split(batch)]


class DeviceHiddenStates(HiddenStates):
    """Hidden states on the device that computed them."""

    def starting(self, first: int) -> Iterator[Tensor]:
        for index in range(first, len(self)):
            yield self._parts[index]

    def put(self, index: int, part: Tensor) -> None:
        self._parts[index] = part


class HostHiddenStates(HiddenStates):
    """Hidden states in host memory, pinned for a GPU; the next batch is copied in advance."""

    def __init__(self, parts: Sequence[Tensor], device: torch.device) -> None:
        super().__init__([])
        self._stream = CopyStream(device)
        for part in parts:
            pinned = device.type == "cuda"
            self._parts.append(torch.empty(part.shape, dtype=part.dtype, pin_memory=pinned))
            self.put(len(self) - 1, part)

    def starting(self, first: int) -> Iterator[Tensor]:
        copies = map(self._stream.upload, self._parts[first:])
        current = next(copies, None)
        while current is not None:
            following = next(copies, None)
            yield self._stream.join(current)
            current = following

    def put(self, index: int, part: Tensor) -> None:
        self._stream.download(part, self._parts[index])
