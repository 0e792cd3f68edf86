"""Temporarily replace the weights of linears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from neuroal.models.adapter import PrunableLinear


@contextmanager
def swapped_weights(
    linears: Sequence[PrunableLinear], weights: Mapping[str, Tensor]
) -> Iterator[None]:
    """Replace the weights of `linears` inside the context, by key and without copying them."""
    dense = {linear.key: linear.module.weight.data for linear in linears}
    for linear in linears:
        linear.module.weight.data = weights[linear.key]
    try:
        yield
    finally:
        for linear in linears:
            linear.module.weight.data = dense[linear.key]


@contextmanager
def leaf_weights(
    linears: Sequence[PrunableLinear], weights: Mapping[str, Tensor]
) -> Iterator[list[nn.Parameter]]:
    """Replace the parameters of `linears` with new leaf parameters inside the context.

    Yield the new parameters, in the order of `linears`. An autograd graph built inside the context
    refers to them, so the backward pass may run after the context ends.
    """
    dense = [linear.module.weight for linear in linears]
    leaves = [nn.Parameter(weights[linear.key]) for linear in linears]
    for linear, leaf in zip(linears, leaves, strict=True):
        linear.module.weight = leaf
    try:
        yield leaves
    finally:
        for linear, weight in zip(linears, dense, strict=True):
            linear.module.weight = weight
