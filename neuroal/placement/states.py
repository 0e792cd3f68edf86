"""Hidden states of many windows on their way through the blocks: one copy, on device or host."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from neuroal.placement.lane import Lane


class States(Sequence[Tensor]):
    """Batches (windows, seqlen, hidden) that are read on the device and replaced one by one."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = list(parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Tensor]:
        return self.starting(0)

    @abstractmethod
    def starting(self, first: int) -> Iterator[Tensor]:
        """The batches from `first` on; the next one is on its way while one is looked at."""

    @abstractmethod
    def put(self, index: int, part: Tensor) -> None:
        """Replace batch `index`."""

    def split(self, batch: int) -> None:
        """Cut every batch into pieces of `batch` windows."""
        self._parts = [piece for part in self._parts for piece in part.split(batch)]


class DeviceStates(States):
    """States that stay where they were made."""

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return self._parts[index]

    def starting(self, first: int) -> Iterator[Tensor]:
        for index in range(first, len(self)):
            yield self._parts[index]

    def put(self, index: int, part: Tensor) -> None:
        self._parts[index] = part


class HostStates(States):
    """States that wait in host memory, pinned where the device is a GPU."""

    def __init__(self, parts: Sequence[Tensor], device: torch.device) -> None:
        super().__init__([])
        self._lane = Lane(device)
        for part in parts:
            pinned = device.type == "cuda"
            host = torch.empty(part.shape, dtype=part.dtype, pin_memory=pinned)
            self._parts.append(host)
            self.put(len(self) - 1, part)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._lane.join(self._lane.upload(self._parts[index]))

    def starting(self, first: int) -> Iterator[Tensor]:
        following = self._lane.upload(self._parts[first]) if first < len(self) else None
        for index in range(first, len(self)):
            assert following is not None
            current = following
            more = index + 1 < len(self)
            following = self._lane.upload(self._parts[index + 1]) if more else None
            yield self._lane.join(current)

    def put(self, index: int, part: Tensor) -> None:
        self._lane.download(part, self._parts[index])
