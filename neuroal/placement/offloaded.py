"""Blocks that come to the device when their turn comes."""

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
from neuroal.placement.lane import Arriving, Lane
from neuroal.placement.layout import Layout

SLOTS = 2
"""Blocks on the device at once: the one at work, and the next one arriving."""


class Source(ABC):
    """Where the bytes of blocks wait.

    Attributes:
        immediate: whether `read` returns at once what stays valid, so that a copy may start early.
    """

    immediate: ClassVar[bool]

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """The bytes of block `index`; unless `immediate`, valid until the next `announce`."""

    def announce(self, index: int) -> None:  # noqa: B027
        """Block `index` will probably be read next."""

    @abstractmethod
    def write(self, index: int, data: Tensor) -> None:
        """Keep `data`, bytes on the device, as block `index` from now on."""

    @abstractmethod
    def resting(self, index: int) -> dict[str, Tensor]:
        """What the parameters of block `index` are while it is not on the device, by name."""


@dataclass(eq=False)
class _Slot:
    """Room for one block on the device."""

    buffer: Tensor
    index: int | None = None
    users: int = 0
    arriving: Arriving | None = None


@dataclass(frozen=True, eq=False)
class _Summons:
    """The forward of a block that may be elsewhere."""

    placement: Offloaded
    index: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.placement.forward(self.index, *args, **kwargs)


class Offloaded(Placement):
    """Two slots on the device, between which the blocks of a model take turns.

    While a block is present, the next one is copied into the other slot (forwards or backwards,
    as the last two blocks went). A block stays until its slot is needed. Whoever runs the model as
    a whole needs to know nothing of this: a block's forward makes it present.

    Args:
        blocks: of the model.
        layouts: of the blocks.
        source: where they wait.
        device: where they compute.
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
        # Weak, so that no cycle keeps a model's memory longer than its last user.
        self._blocks = [ref(block) for block in blocks]
        self._before = [vars(block).get("forward") for block in blocks]
        self._lane = Lane(device)
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
        """What block `index` makes of its arguments, once it is present."""
        with self.present(index):
            return self._block(index).forward(*args, **kwargs)

    def _block(self, index: int) -> nn.Module:
        block = self._blocks[index]()
        assert block is not None  # whoever asks holds the model
        return block

    def _wrap(self, index: int) -> None:
        """Let the block's forward make it present."""
        self._block(index).forward = _Summons(self, index)

    def _unwrap(self, index: int) -> bool:
        """Give a block its own forward back; False if it has another one at the moment."""
        block, before = self._block(index), self._before[index]
        if not isinstance(vars(block).get("forward"), _Summons):
            return False
        del block.forward
        if before is not None:
            block.forward = before
        return True

    @contextmanager
    def present(self, index: int, *, writes: bool = False) -> Iterator[None]:
        slot = self._fetch(index)
        slot.users += 1
        # A present block is an ordinary one, which torch.compile can look into.
        bare = self._unwrap(index)
        try:
            self._expect_after(index)
            yield
            if writes:
                self.source.write(index, slot.buffer[: self.layouts[index].size])
        finally:
            slot.users -= 1
            if bare:
                self._wrap(index)

    def _fetch(self, index: int) -> _Slot:
        slot = next((slot for slot in self._slots if slot.index == index), None)
        if slot is None:
            slot = self._load(index)
        if slot.arriving is not None:
            self._lane.join(slot.arriving)
            slot.arriving = None
            self.layouts[index].point(self.layouts[index].views(slot.buffer))
        return slot

    def _load(self, index: int) -> _Slot:
        """Start to copy block `index` into a slot that nobody uses."""
        free = [slot for slot in self._slots if not slot.users]
        if not free:
            raise RuntimeError(f"no room for block {index}: two others are at work")
        # Of two free slots, the one whose block was at work last stays.
        slot = min(free, key=lambda slot: (slot.index is not None, slot.index == self._last))
        if slot.index is not None:
            self.layouts[slot.index].point(self.source.resting(slot.index))
            slot.index = None
        data = self.source.read(index)
        slot.arriving = self._lane.fill(slot.buffer[: len(data)], data)
        if not self.source.immediate:
            self._lane.finish(slot.arriving)
        slot.index = index
        return slot

    def _expect_after(self, index: int) -> None:
        if index == self._last:
            return
        self._step = index - self._last if abs(index - self._last) == 1 else 1
        self._last = index
        following = (index + self._step) % len(self.layouts)
        if any(slot.index == following for slot in self._slots):
            return
        if not self.source.immediate:
            self.source.announce(following)
        elif any(not slot.users for slot in self._slots):
            self._load(following)

    def release(self) -> None:
        """Let all parameters rest, and the blocks compute wherever these are."""
        for slot in self._slots:
            if slot.index is not None:
                self.layouts[slot.index].point(self.source.resting(slot.index))
                slot.index = None
        for index in range(len(self._blocks)):
            self._unwrap(index)
        self._slots.clear()
