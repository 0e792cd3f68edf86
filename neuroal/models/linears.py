"""Prunable linears: one view of weights that models store in different ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class PrunableLinear:
    """A linear layer `module` that may be pruned.

    Attributes:
        block: index of the decoder block.
        name: module name inside the block, such as ``mlp.up_proj``.
        module: is called with the input of the linear and returns its output; accepts hooks.
    """

    block: int
    name: str
    module: nn.Module

    @property
    def key(self) -> str:
        """Name in plans, records and masks: ``"BLOCK.NAME"``."""
        return f"{self.block}.{self.name}"

    @property
    def weight(self) -> Tensor:
        """Weight without gradient: (rows, cols) = (outputs, inputs), maybe not contiguous.

        An assignment copies the values into the existing tensor.
        """
        return self._view(cast(Tensor, self.module.weight.data))

    @weight.setter
    def weight(self, values: Tensor) -> None:
        self.weight.copy_(values)

    def _view(self, values: Tensor) -> Tensor:
        """Convert the weight from how it is stored to (rows, cols), or back."""
        return values

    @property
    def storage(self) -> tuple[int, int]:
        """Identity of the stored weight, equal for linears that share it."""
        return id(self.module.weight), 0

    @property
    def rows(self) -> int:
        return self.weight.shape[0]

    @property
    def cols(self) -> int:
        return self.weight.shape[1]

    @property
    def numel(self) -> int:
        return self.rows * self.cols

    @contextmanager
    def swapped(self, values: Tensor) -> Iterator[None]:
        """Use `values` (rows, cols) as the weight inside the context, without copying them."""
        dense = self.module.weight.data
        self.module.weight.data = self._view(values)
        try:
            yield
        finally:
            self.module.weight.data = dense

    @contextmanager
    def differentiable(self, leaf: nn.Parameter) -> Iterator[None]:
        """Use `leaf` (rows, cols) as the weight inside the context, so that it gets gradients."""
        dense = self.module.weight
        self.module.weight = leaf
        try:
            yield
        finally:
            self.module.weight = dense


class TransposedLinear(PrunableLinear):
    """A ``Conv1D``, as in GPT-2, which stores its weight as (inputs, outputs)."""

    def _view(self, values: Tensor) -> Tensor:
        return values.T

    @contextmanager
    def differentiable(self, leaf: nn.Parameter) -> Iterator[None]:
        with torch.enable_grad():
            transposed = leaf.T
        vars(self.module)["weight"] = transposed  # hides the parameter of that name
        try:
            yield
        finally:
            del vars(self.module)["weight"]
