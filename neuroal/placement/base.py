"""What a placement is: it brings the weights of a block to the device that computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neuroal.placement.states import DeviceStates, HostStates, States


class Placement(ABC):
    """Makes the weights of one block at a time present on `device`.

    Attributes:
        device: where blocks compute, and where everything outside of them is.
        offloads: whether blocks that are not at work wait somewhere else.
    """

    offloads: ClassVar[bool] = False

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it is."""

    @abstractmethod
    def present(self, index: int, *, writes: bool = False) -> AbstractContextManager[None]:
        """Have the weights of block `index` on the device inside the context.

        Args:
            index: block.
            writes: what is written to the weights inside the context is kept; otherwise it may
                be lost.
        """

    def states(self, parts: list[Tensor]) -> States:
        """`parts`, the hidden states of many windows, kept where there is room for them."""
        return HostStates(parts, self.device) if self.offloads else DeviceStates(parts)


class Resident(Placement):
    """All weights stay on the device."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @property
    def device(self) -> torch.device:
        """Device of the first parameter: the embeddings."""
        return next(self._model.parameters()).device

    @contextmanager
    def present(self, index: int, *, writes: bool = False) -> Iterator[None]:
        yield


_placements: WeakKeyDictionary[nn.Module, Placement] = WeakKeyDictionary()


def placement_of(model: nn.Module) -> Placement:
    """The placement that `model` was given; all weights stay where they are if none was."""
    return _placements.get(model) or Resident(model)


def set_placement(model: nn.Module, placement: Placement | None) -> None:
    """Let `placement_of` know; None: the weights stay where they are from now on."""
    if placement is None:
        _placements.pop(model, None)
    else:
        _placements[model] = placement
