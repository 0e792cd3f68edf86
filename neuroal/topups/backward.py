"""One block's forward pass with its graph, and the way back through it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner


@dataclass(frozen=True, eq=False)
class Pass:
    """One block's pass over the batches of a minibatch, with its graph where `leaves` has any."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    leaves: Sequence[Tensor]

    @classmethod
    def forward(
        cls,
        runner: BlockRunner,
        index: int,
        hidden: Sequence[Tensor],
        leaves: Sequence[Tensor] | None,
    ) -> Pass:
        inputs = [part.detach().requires_grad_(leaves is not None) for part in hidden]
        with torch.set_grad_enabled(leaves is not None):
            outputs = [runner.call(index, batch, part) for batch, part in enumerate(inputs)]
        return cls(inputs, outputs, leaves or ())

    def without_outputs(self) -> Pass:
        return Pass(self.inputs, (), ())


def walk_back(
    runner: BlockRunner,
    index: int,
    passed: Pass,
    leaves: Sequence[Tensor],
    flowing: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients at a block's weights and at its inputs; without a graph it is made anew."""
    totals: list[Tensor] = []
    earlier: list[Tensor] = []
    for batch, upstream in enumerate(flowing):
        part = passed.inputs[batch]
        if passed.outputs:
            output = passed.outputs[batch]
        else:
            part = part.detach().requires_grad_(True)
            with torch.enable_grad():
                output = runner.call(index, batch, part)
        *found, at_input = torch.autograd.grad(
            output, [*leaves, part], upstream, allow_unused=True, materialize_grads=True
        )
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        earlier.append(at_input)
    return totals, earlier


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let backward passes on a GPU add up in a fixed order, where there is a way to."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about operations that have no such way
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)
