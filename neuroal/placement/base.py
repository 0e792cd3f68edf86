"""Interface of placements, and the placement of models that fit on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuroal.placement.hidden_states import DeviceHiddenStates, HiddenStates, HostHiddenStates


class Placement(ABC):
    """Keeps the weights of a model, and provides those of a block on `device` on request."""

    offloads: ClassVar[bool] = False
    """Whether idle blocks are kept outside of the device."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device on which blocks compute; everything outside of the blocks stays there."""

    @abstractmethod
    def present(self, index: int, *, writes: bool = False) -> AbstractContextManager[None]:
        """Keep block `index` on the device; without `writes`, changes to it may be lost."""

    def states(self, parts: list[Tensor]) -> HiddenStates:
        """Store batches of hidden states on the host if the placement offloads."""
        return HostHiddenStates(parts, self.device) if self.offloads else DeviceHiddenStates(parts)


class Resident(Placement):
    """Keeps all weights on the device."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @property
    def device(self) -> torch.device:
        """Device of the first parameter, which is the embedding."""
        return next(self._model.parameters()).device

    @contextmanager
    def present(self, index: int, *, writes: bool = False) -> Iterator[None]:
        yield


ATTRIBUTE = "_neuroal_placement"


def placement_of(model: nn.Module) -> Placement:
    """Return the placement set by `set_placement`, or `Resident` by default."""
    placement: Placement | None = vars(model).get(ATTRIBUTE)
    return placement or Resident(model)


def set_placement(model: nn.Module, placement: Placement | None) -> None:
    """Set the placement of `model`; None restores the default, `Resident`."""
    if placement is None:
        vars(model).pop(ATTRIBUTE, None)
    else:
        vars(model)[ATTRIBUTE] = placement
