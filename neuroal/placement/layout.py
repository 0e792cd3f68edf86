"""Layout of a block's matrices in one buffer, so that one copy moves all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Alignment of the start of each matrix, in bytes."""


@dataclass(frozen=True, eq=False)
class _ByteRange:
    """Bytes [begin, end) of the buffer, which hold one matrix."""

    name: str
    parameter: nn.Parameter
    shape: torch.Size
    dtype: torch.dtype
    begin: int
    end: int


class Layout:
    """Byte range of each matrix of a block in the block's buffer.

    Only parameters with at least two dimensions are offloaded. The others (norms, biases) are
    small and stay on the device.
    """

    def __init__(self, block: nn.Module) -> None:
        self._ranges: list[_ByteRange] = []
        begin = 0
        for name, parameter in moved(block):
            shape, dtype, end = parameter.shape, parameter.dtype, begin + parameter.nbytes
            self._ranges.append(_ByteRange(name, parameter, shape, dtype, begin, end))
            begin = -(-end // ALIGNMENT) * ALIGNMENT

    @property
    def names(self) -> list[str]:
        """Names of the matrices inside the block."""
        return [part.name for part in self._ranges]

    @property
    def size(self) -> int:
        """Size of the buffer in bytes."""
        return self._ranges[-1].end if self._ranges else 0

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Return the matrices in `buffer` (bytes) as views, by name."""
        return {
            part.name: buffer[part.begin : part.end].view(part.dtype).view(part.shape)
            for part in self._ranges
        }

    def tensor(self, name: str) -> Tensor:
        """Return the current data of parameter `name`."""
        return next(part.parameter.data for part in self._ranges if part.name == name)

    def point(self, tensors: dict[str, Tensor]) -> None:
        """Set the data of the block's parameters to `tensors`, by name, without copying."""
        for part in self._ranges:
            part.parameter.data = tensors[part.name]


def moved(block: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return names and parameters of a block's matrices, which an offloading placement moves."""
    return (
        (name, parameter) for name, parameter in block.named_parameters() if parameter.dim() >= 2
    )


def absent(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a placeholder of the given shape that stores a single NaN."""
    return torch.full((1,), math.nan, dtype=dtype).expand(shape)
