"""Masks with one bit per entry. In every mask, True = pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from neuroal.execution.memory import free_memory
from neuroal.kernels.async_copy import HostCopy
from neuroal.kernels.masks import pack_bits

SHARE_OF_GPU = 0.125
"""Share of a GPU's free memory that packed masks may fill until they are read."""
_MOST_PENDING = 16
"""Upper bound on unfinished copies of GPU masks to the host: about two blocks of a LLaMA."""


class PackedMasks(Mapping[str, Tensor]):
    """Masks (rows, cols) by linear, stored packed and unpacked when read.

    The masks of a 7B model take 0.8 GB instead of 6.5 GB. Those of a GPU stay there until they are
    read, as long as they take at most `SHARE_OF_GPU`. Copying them takes about half a second, and
    is not needed if only the pruned weights are used.

    Attributes:
        differing: number of entries that the method would choose differently, if the masks were
            prescribed; None: not compared.
    """

    def __init__(self) -> None:
        self.differing: int | None = None
        self._bits: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._zeros: dict[str, int] = {}
        self._pending: list[tuple[Sequence[str], HostCopy, HostCopy]] = []
        self._on_gpu: list[tuple[Sequence[str], Tensor, Tensor]] = []
        self._room: float | None = None

    def comparison(self, numel: int) -> str:
        """Return how prescribed masks of `numel` entries differ from free choices, if compared."""
        if self.differing is None:
            return ""
        free = f"{self.differing} of their {numel} entries"
        return f"; pruning freely would choose {free} differently"

    def reserve(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Order linears, whose masks of these shapes may be added later in another order."""
        self._shapes.update(shapes)

    def add(self, key: str, mask: Tensor) -> None:
        """Pack `mask` on its own device, without waiting for the device to finish."""
        self.add_all((key,), mask[None])

    def add_all(self, keys: Sequence[str], masks: Tensor) -> None:
        """Add the masks (linears, rows, cols) of several linears; see `add`."""
        rows, cols = masks.shape[1:]
        self._shapes.update(dict.fromkeys(keys, (rows, cols)))
        bits, zeros = pack_bits(masks)
        if self._stays(bits):
            self._on_gpu.append((keys, bits, zeros))
            return
        self._pending.append((keys, HostCopy(bits), HostCopy(zeros)))
        self._settle(_MOST_PENDING if masks.is_cuda else 0)

    def add_bits(self, key: str, bits: Tensor, shape: tuple[int, int]) -> None:
        """Add a mask (rows, cols) = `shape` that is already packed: (bytes,) uint8 on the host."""
        self._bits[key], self._shapes[key] = bits, shape
        self._zeros[key] = int(self[key].sum())

    def bits(self, key: str) -> Tensor:
        """Return one mask as packed by ``numpy.packbits``: (bytes,) uint8."""
        self._read()
        return self._bits[key]

    def __getitem__(self, key: str) -> Tensor:
        return unpack(self.bits(key).numpy(), self._shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def _stays(self, bits: Tensor) -> bool:
        """Return whether `bits` stay on their GPU, and reduce the room that is left there."""
        if not bits.is_cuda:
            return False
        if self._room is None:
            self._room = SHARE_OF_GPU * free_memory(bits.device)
        self._room -= bits.nbytes
        return self._room >= 0

    def _settle(self, most: int) -> None:
        """Wait for the oldest masks until at most `most` copies are pending."""
        while len(self._pending) > most:
            keys, bits, zeros = self._pending.pop(0)
            self._store(keys, bits.get(), zeros.get())

    def _read(self) -> None:
        """Bring all masks to the host."""
        self._settle(0)
        while self._on_gpu:
            keys, bits, zeros = self._on_gpu.pop(0)
            self._store(keys, bits.cpu(), zeros)

    def _store(self, keys: Sequence[str], bits: Tensor, zeros: Tensor) -> None:
        self._bits.update(zip(keys, bits, strict=True))
        self._zeros.update(zip(keys, zeros.tolist(), strict=True))

    @property
    def sparsity(self) -> float:
        """Share of pruned entries over all masks."""
        self._read()
        total = sum(rows * cols for rows, cols in self._shapes.values())
        return sum(self._zeros.values()) / total

    def sparsities(self) -> dict[str, float]:
        """Return the share of pruned entries of each mask."""
        self._read()
        return {key: self._zeros[key] / (rows * cols) for key, (rows, cols) in self._shapes.items()}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 (hex) of the packed bits of each mask."""
        return {key: sha256(self.bits(key).numpy().tobytes()).hexdigest() for key in self}


def unpack(bits: np.ndarray[tuple[int], np.dtype[np.uint8]], shape: tuple[int, int]) -> Tensor:
    """Return the mask of the given shape from the result of ``numpy.packbits``."""
    flat = np.unpackbits(bits, count=shape[0] * shape[1])
    return torch.from_numpy(flat.astype(bool)).view(shape)
