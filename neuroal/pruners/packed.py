"""Masks at one bit an entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

import torch
from torch import Tensor

from neuroal.pruners.masks import unpack


class PackedMasks(Mapping[str, Tensor]):
    """Masks (rows, cols) by linear, True = pruned, held packed on the host and unpacked when read.

    The mask of a 7B model takes 0.8 GB this way instead of 6.5.
    """

    def __init__(self) -> None:
        self._bits: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._zeros: dict[str, int] = {}

    def add(self, key: str, mask: Tensor) -> None:
        """Pack `mask`, on its own device."""
        self.add_bits(key, pack_bits(mask).cpu(), (mask.shape[0], mask.shape[1]), int(mask.sum()))

    def add_bits(
        self, key: str, bits: Tensor, shape: tuple[int, int], zeros: int | None = None
    ) -> None:
        """Take a mask that is packed already: (bytes,) uint8 on the host."""
        self._bits[key], self._shapes[key] = bits, shape
        self._zeros[key] = int(self[key].sum()) if zeros is None else zeros

    def bits(self, key: str) -> Tensor:
        """The bits of one mask, as `masks.pack` orders them: (bytes,) uint8."""
        return self._bits[key]

    def __getitem__(self, key: str) -> Tensor:
        return unpack(self._bits[key].numpy(), self._shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    @property
    def sparsity(self) -> float:
        """Share of pruned entries over all masks."""
        total = sum(rows * cols for rows, cols in self._shapes.values())
        return sum(self._zeros.values()) / total

    def sparsities(self) -> dict[str, float]:
        """Share of pruned entries of each mask."""
        return {key: self._zeros[key] / (rows * cols) for key, (rows, cols) in self._shapes.items()}

    def digests(self) -> dict[str, str]:
        """`masks.digest` of each mask."""
        return {key: sha256(bits.numpy().tobytes()).hexdigest() for key, bits in self._bits.items()}


def pack_bits(mask: Tensor) -> Tensor:
    """What ``numpy.packbits`` makes of the flattened mask (row-major), on the mask's device."""
    flat = mask.flatten()
    lacking = -len(flat) % 8
    if lacking:
        flat = torch.cat([flat, flat.new_zeros(lacking)])
    weights = 2 ** torch.arange(7, -1, -1, device=mask.device, dtype=torch.uint8)
    return (flat.view(-1, 8) * weights).sum(1, dtype=torch.uint8)
