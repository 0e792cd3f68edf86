"""Placement that copies blocks to the device when they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import ref

import torch
from torch import Tensor, nn

from neuroal.placement.base import Placement
from neuroal.placement.copy_stream import CopyStream, PendingCopy
from neuroal.placement.layout import Layout

SLOTS = 2
"""Blocks on the device at once: the one that computes and the one that is being copied."""


class Source(ABC):
    """Storage of the blocks of an offloaded model."""

    immediate: ClassVar[bool]
    """Whether `read` returns without delay and its result stays valid: copies may start early."""

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """Return the bytes of block `index`: (size,) uint8.

        Unless `immediate`, the result is valid until the next `announce`.
        """

    def announce(self, index: int) -> None:  # noqa: B027
        """Hint that block `index` will probably be read next."""

    @abstractmethod
    def write(self, index: int, data: Tensor) -> None:
        """Replace block `index` by `data`, bytes on the device."""

    @abstractmethod
    def resting(self, index: int) -> dict[str, Tensor]:
        """Return the parameter data of block `index` while it is idle, by name."""


class BufferedBlocks(Source):
    """Source that keeps the matrices of each block in one buffer.

    Parameters of idle blocks are views of these buffers.
    """

    immediate = True

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._layouts = layouts
        self._buffers: list[Tensor] = []

    def fill(self, buffer: Tensor) -> None:
        """Move the next block into `buffer`: (size,) uint8."""
        layout = self._layouts[len(self._buffers)]
        for name, view in layout.views(buffer).items():
            view.copy_(layout.tensor(name))
        layout.point(layout.views(buffer))
        self._buffers.append(buffer)

    def read(self, index: int) -> Tensor:
        return self._buffers[index]

    def write(self, index: int, data: Tensor) -> None:
        self._buffers[index].copy_(data)

    def resting(self, index: int) -> dict[str, Tensor]:
        return self._layouts[index].views(self._buffers[index])


@dataclass(eq=False)
class _Slot:
    """Device memory for the bytes of one block, empty if `index` is None."""

    buffer: Tensor
    index: int | None = None
    users: int = 0
    """Number of `Offloaded.present` contexts that use the block."""
    pending: PendingCopy | None = None
    """Copy of the block that has not been joined."""


@dataclass(frozen=True, eq=False)
class _OnDemandForward:
    """Forward of an offloaded block: makes the block present and then runs it."""

    placement: Offloaded
    index: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.placement.forward(self.index, *args, **kwargs)


class Offloaded(Placement):
    """Placement with two slots on the device, which the blocks of a model share.

    While a block is present, the next one is copied into the other slot. The next block is the
    following or the preceding one, depending on the order of the last two. A block stays in its
    slot until another block needs the slot. Running the whole model needs no special handling,
    because the forward of each block makes the block present.
    """

    offloads = True

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        layouts: Sequence[Layout],
        source: Source,
        device: torch.device,
    ) -> None:
        self._device, self.layouts, self.source = device, layouts, source
        # Weak references avoid a cycle, so the memory of an unused model is released at once.
        self._blocks = [ref(block) for block in blocks]
        self._original_forwards = [vars(block).get("forward") for block in blocks]
        self._stream = CopyStream(device)
        size = max(layout.size for layout in layouts)
        self._slots = [
            _Slot(torch.empty(size, dtype=torch.uint8, device=device)) for _ in range(SLOTS)
        ]
        self._last, self._step = -1, 1
        for index in range(len(blocks)):
            self._wrap(index)

    @property
    def device(self) -> torch.device:
        return self._device

    def forward(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Run block `index` on the given arguments while it is present."""
        with self.present(index):
            return self._block(index).forward(*args, **kwargs)

    def _block(self, index: int) -> nn.Module:
        block = self._blocks[index]()
        assert block is not None  # callers hold a reference to the model
        return block

    def _wrap(self, index: int) -> None:
        """Replace the forward of block `index` by one that makes the block present."""
        self._block(index).forward = _OnDemandForward(self, index)

    def _unwrap(self, index: int) -> bool:
        """Restore the forward of block `index`; return whether it had been replaced."""
        block, original = self._block(index), self._original_forwards[index]
        if not isinstance(vars(block).get("forward"), _OnDemandForward):
            return False
        del block.forward
        if original is not None:
            block.forward = original
        return True

    @contextmanager
    def present(self, index: int, *, writes: bool = False) -> Iterator[None]:
        slot = self._fetch(index)
        slot.users += 1
        # A present block has its own forward, which torch.compile can trace.
        unwrapped = self._unwrap(index)
        try:
            self._prefetch_after(index)
            yield
            if writes:
                self.source.write(index, slot.buffer[: self.layouts[index].size])
        finally:
            slot.users -= 1
            if unwrapped:
                self._wrap(index)

    def _fetch(self, index: int) -> _Slot:
        """Return the slot of block `index`, with the block's parameters on the device."""
        slot = next((slot for slot in self._slots if slot.index == index), None)
        if slot is None:
            slot = self._load(index)
        if slot.pending is not None:
            self._stream.join(slot.pending)
            slot.pending = None
            self.layouts[index].point(self.layouts[index].views(slot.buffer))
        return slot

    def _load(self, index: int) -> _Slot:
        """Start to copy block `index` into a free slot."""
        free = [slot for slot in self._slots if not slot.users]
        if not free:
            raise RuntimeError(f"no free slot for block {index}: two other blocks are in use")
        # Prefer an empty slot, and keep the block that was used last.
        slot = min(free, key=lambda slot: (slot.index is not None, slot.index == self._last))
        self._vacate(slot)
        data = self.source.read(index)
        slot.pending = self._stream.fill(slot.buffer[: len(data)], data)
        if not self.source.immediate:
            self._stream.finish(slot.pending)
        slot.index = index
        return slot

    def _prefetch_after(self, index: int) -> None:
        """Start to read or copy the block that is likely to follow block `index`."""
        if index == self._last:
            return
        self._step = index - self._last if abs(index - self._last) == 1 else 1
        self._last = index
        next_index = (index + self._step) % len(self.layouts)
        if any(slot.index == next_index for slot in self._slots):
            return
        if not self.source.immediate:
            self.source.announce(next_index)
        elif any(not slot.users for slot in self._slots):
            self._load(next_index)

    def _vacate(self, slot: _Slot) -> None:
        if slot.index is not None:
            self.layouts[slot.index].point(self.source.resting(slot.index))
            slot.index = None

    def release(self) -> None:
        """Remove all blocks from the device and restore their forwards."""
        for slot in self._slots:
            self._vacate(slot)
        for index in range(len(self._blocks)):
            self._unwrap(index)
        self._slots.clear()
