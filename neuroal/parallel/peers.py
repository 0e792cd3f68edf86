"""The devices that do a stage together, as seen from one of them.

Every device runs the same function on its own share of the windows, and the statistics of all
shares are exchanged. Sums add the parts of the devices in a fixed order, so that a result is the
same each time for a given number of devices. An exchange takes a fixed time besides that for its
bytes, so small tensors are exchanged as one.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch
from torch import Tensor

SMALL = 2**25
"""Maximum size in bytes of a tensor that is copied to be exchanged together with others."""


class Event(enum.IntEnum):
    """State of a device when all devices meet; the highest one decides for all."""

    READY = 0
    OUT_OF_MEMORY = 1
    FAILED = 2


class PeerFailed(RuntimeError):
    """Another device failed, which reports its own error."""


class PeerOutOfMemory(PeerFailed):
    """Another device ran out of memory, so all devices repeat their work on smaller batches."""


class Peers:
    """The interface of a device to the others; this class is a device that works alone.

    All devices must call the same methods in the same order.

    Attributes:
        rank: number of this device, from 0.
        size: number of devices.
    """

    rank: int = 0
    size: int = 1

    def meet(self, event: Event = Event.READY) -> None:
        """Wait for all devices, and report this device's state to them.

        Raises:
            PeerOutOfMemory: another device ran out of memory, and this one did not.
            PeerFailed: another device failed, and this one did not.
        """

    def all_of(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all devices, which have the same shape: (size, …)."""
        return tensor[None]

    def exchanged(self, tensor: Tensor) -> Tensor:
        """Return part `rank` of every device's tensor, split in `size` along dimension 0.

        The result is (size, …) in the order of the devices.
        """
        return tensor[None]

    def receive(self, tensor: Tensor, source: int) -> None:
        """Overwrite `tensor` by that of device `source`."""

    def share(self, count: int) -> Share:
        """Return this device's share of `count` windows."""
        return Share(self, count)

    def rows(self, count: int) -> slice:
        """Return this device's share of the rows of a matrix; the last devices may have none."""
        size = -(-count // self.size)
        return slice(min(self.rank * size, count), min((self.rank + 1) * size, count))

    def row_sums(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Return `rows` of the sum of all devices' matrices, for each of `matrices`.

        The sums are in float32 if there are several devices, all of which have met before.
        """
        if self.size == 1:
            return list(matrices)
        sums = list(matrices)
        for group in _groups(matrices):
            padded = [_padded(matrices[index], self.size) for index in group]
            by_device = [matrix.reshape(self.size, -1) for matrix in padded]
            parts = self.exchanged(torch.cat(by_device, 1) if len(group) > 1 else by_device[0])
            total = parts.flatten(0, 1).sum(0, dtype=torch.float32)
            pieces = total.split([matrix.shape[1] for matrix in by_device])
            for index, piece in zip(group, pieces, strict=True):
                rows = self.rows(len(matrices[index]))
                sums[index] = piece.view(-1, *matrices[index].shape[1:])[: rows.stop - rows.start]
        return sums

    def joined_rows(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """Return all rows of several tensors, of which each device has its `rows`.

        Args:
            parts: the rows of this device.
            counts: number of all rows of each tensor.
        """
        if self.size == 1:
            return list(parts)
        sizes = [-(-count // self.size) for count in counts]
        padded = [_lengthened(part, size) for part, size in zip(parts, sizes, strict=True)]
        joined = list(parts)
        for group in _groups(padded):
            of_all = self.all_of(_flat([padded[index] for index in group]))
            pieces = of_all.split([padded[index].numel() for index in group], dim=1)
            for index, piece in zip(group, pieces, strict=True):
                rows = piece.reshape(-1, *padded[index].shape[1:])
                joined[index] = rows[: counts[index]]
        return joined

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sum of all devices' tensors, for each of `tensors`, in their own dtype."""
        if self.size == 1:
            return list(tensors)
        self.meet()
        totals = list(tensors)
        for group in _groups(tensors):
            flat = _flat([tensors[index] for index in group])
            parts = self.exchanged(_padded(flat, self.size))
            total = self.all_of(parts.sum(0, dtype=flat.dtype)).view(-1)
            pieces = total[: len(flat)].split([tensors[index].numel() for index in group])
            for index, piece in zip(group, pieces, strict=True):
                totals[index] = piece.view(tensors[index].shape)
        return totals

    def owners(self, sizes: Sequence[int]) -> list[int]:
        """Return a device for each of several pieces of work of the given `sizes`.

        The largest piece goes first, each to the device with the least work so far.
        """
        load, owners = [0] * self.size, [0] * len(sizes)
        for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
            owners[index] = min(range(self.size), key=lambda rank: (load[rank], rank))
            load[owners[index]] += sizes[index]
        return owners


class Share:
    """The windows of one device: neighbours, as many as the other devices have, or one more.

    With fewer windows than devices, a device without a window of its own repeats the first one and
    adds nothing to sums, so that tensors have the same shapes everywhere.

    Attributes:
        count: number of windows of all devices.
        windows: indices of the windows that this device runs, at least one.
    """

    def __init__(self, peers: Peers, count: int) -> None:
        self._peers, self.count = peers, count
        self._sizes = [count // peers.size + (r < count % peers.size) for r in range(peers.size)]
        begin = sum(self._sizes[: peers.rank])
        self._own = self._sizes[peers.rank]
        self.windows = range(begin, begin + self._own) if self._own else range(1)

    @property
    def whole(self) -> bool:
        """Whether this device runs all windows itself."""
        return self._peers.size == 1

    def of(self, windows: Tensor) -> Tensor:
        """Return the own windows of a tensor with one entry per window."""
        return windows if self.whole else windows[self.windows.start : self.windows.stop]

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums of all devices' tensors."""
        return self._peers.sums([self._own_part(tensor) for tensor in tensors])

    def row_sums(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Return this device's rows of the sums of all devices' matrices (`Peers.row_sums`)."""
        return self._peers.row_sums([self._own_part(matrix) for matrix in matrices])

    def joined_rows(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """Return all rows of several tensors (`Peers.joined_rows`)."""
        return self._peers.joined_rows(parts, counts)

    def total(self, value: float) -> float:
        """Return the sum of a number over all devices."""
        if self.whole:
            return value
        self._peers.meet()
        own = torch.tensor([value if self._own else 0.0], dtype=torch.float64)
        return float(self._peers.all_of(own).sum())

    def joined(self, tensor: Tensor) -> Tensor:
        """Return a tensor with one entry per window for all windows, from those of each device."""
        if self.whole:
            return tensor
        self._peers.meet()
        parts = self._peers.all_of(_lengthened(tensor[: self._own], max(self._sizes)))
        return torch.cat([part[:size] for part, size in zip(parts, self._sizes, strict=True)])

    def of_all(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all devices, which have the same shape, one after another."""
        self._peers.meet()
        return self._peers.all_of(tensor).flatten(0, 1)

    def _own_part(self, tensor: Tensor) -> Tensor:
        return tensor if self._own else tensor.new_zeros(tensor.shape)


def _groups(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of tensors to exchange together, which have one dtype and device."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        alone = None if tensor.nbytes <= SMALL else index
        groups.setdefault((tensor.device, tensor.dtype, alone), []).append(index)
    return list(groups.values())


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return the entries of all `tensors` as one vector; a single tensor is not copied."""
    vectors = [tensor.reshape(-1) for tensor in tensors]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)


def _lengthened(tensor: Tensor, length: int) -> Tensor:
    """Return `tensor` with zeros behind its last entry, up to `length` entries."""
    missing = length - len(tensor)
    if not missing:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


def _padded(tensor: Tensor, size: int) -> Tensor:
    """Return `tensor` with zeros behind its last entry, so that `size` divides its length."""
    return _lengthened(tensor, -(-len(tensor) // size) * size)


ALONE = Peers()
"""A device that works alone; it has no state."""
