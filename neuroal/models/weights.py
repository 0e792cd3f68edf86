"""Temporarily replace the weights of linears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from neuroal.models.adapter import PrunableLinear


@contextmanager
def swapped_weights(
    linears: Sequence[PrunableLinear], weights: Mapping[str, Tensor]
) -> Iterator[None]:
    """Replace the weights of `linears` inside the context, by key and without copying them."""
    with ExitStack() as stack:
        for linear in linears:
            stack.enter_context(linear.swapped(weights[linear.key]))
        yield


@contextmanager
def leaf_weights(
    linears: Sequence[PrunableLinear], weights: Mapping[str, Tensor]
) -> Iterator[list[nn.Parameter]]:
    """Replace the parameters of `linears` with new leaf parameters inside the context.

    Yield the new parameters, in the order of `linears`. An autograd graph built inside the context
    refers to them, so the backward pass may run after the context ends.
    """
    leaves = [nn.Parameter(weights[linear.key]) for linear in linears]
    with ExitStack() as stack:
        for linear, leaf in zip(linears, leaves, strict=True):
            stack.enter_context(linear.differentiable(leaf))
        yield leaves
