"""The matrices of a block as one stretch of bytes, so that one copy moves all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes; every matrix starts at a multiple."""


@dataclass(frozen=True, eq=False)
class _Place:
    name: str
    parameter: nn.Parameter
    shape: torch.Size
    dtype: torch.dtype
    begin: int
    end: int


class Layout:
    """Where each matrix of a block lies in the block's bytes.

    Only parameters of two or more dimensions are moved. The others (norms, biases) are small and
    stay on the device.
    """

    def __init__(self, places: Sequence[_Place]) -> None:
        self._places = tuple(places)

    @classmethod
    def of(cls, block: nn.Module) -> Layout:
        places: list[_Place] = []
        begin = 0
        for name, parameter in moved(block):
            end = begin + math.prod(parameter.shape) * parameter.element_size()
            places.append(_Place(name, parameter, parameter.shape, parameter.dtype, begin, end))
            begin = -(-end // ALIGNMENT) * ALIGNMENT
        return cls(places)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the matrices, inside the block."""
        return tuple(place.name for place in self._places)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._places[-1].end if self._places else 0

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The matrices that lie in `buffer` (bytes), by name; no copies."""
        return {
            place.name: buffer[place.begin : place.end].view(place.dtype).view(place.shape)
            for place in self._places
        }

    def tensor(self, name: str) -> Tensor:
        """What the parameter called `name` holds at present."""
        return next(place.parameter.data for place in self._places if place.name == name)

    def point(self, tensors: dict[str, Tensor]) -> None:
        """Let the block's parameters be `tensors`."""
        for place in self._places:
            place.parameter.data = tensors[place.name]


def moved(block: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a block that an offloading placement moves."""
    return ((name, part) for name, part in block.named_parameters() if part.dim() >= 2)


def absent(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A stand-in of any shape that takes no memory; whoever computes with it gets NaN."""
    return torch.full((1,), math.nan, dtype=dtype).expand(shape)
