"""A device beside which another one does the same."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroal.parallel.peers import Peers


class Twins(Peers):
    """The first of two devices that hold the same tensors; counts the exchanges.

    Attributes:
        exchanges: number of exchanges.
        entries: number of entries that were exchanged to be added.
    """

    size = 2

    def __init__(self) -> None:
        self.exchanges = 0
        self.entries = 0

    def all_of(self, tensor: Tensor) -> Tensor:
        self.exchanges += 1
        return torch.stack([tensor, tensor])

    def exchanged(self, tensor: Tensor) -> Tensor:
        self.exchanges += 1
        self.entries += tensor.numel()
        return tensor.chunk(2)[0].expand(2, *tensor.chunk(2)[0].shape)
