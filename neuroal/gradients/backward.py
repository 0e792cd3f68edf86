"""Forward passes of one block that record a graph, and backward passes through it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.execution.runner import BlockRunner


@dataclass(frozen=True, eq=False)
class BlockPass:
    """The forward pass of one block over all batches of a minibatch.

    Attributes:
        inputs: hidden states that enter the block, one tensor per batch.
        outputs: hidden states that leave the block; empty after `without_outputs`.
        leaves: weights that the recorded graph depends on; empty: no graph was recorded.
    """

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
    ) -> BlockPass:
        """Run block `index` on `hidden`; record a graph unless `leaves` is None."""
        inputs = [part.detach().requires_grad_(leaves is not None) for part in hidden]
        with torch.set_grad_enabled(leaves is not None):
            outputs = [runner.call(index, number, part) for number, part in enumerate(inputs)]
        return cls(inputs, outputs, leaves or ())

    def without_outputs(self) -> BlockPass:
        """Return a pass that holds only the inputs, which releases the graph."""
        return BlockPass(self.inputs, (), ())


def walk_back(
    runner: BlockRunner,
    index: int,
    forward: BlockPass,
    leaves: Sequence[Tensor],
    upstream: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients at a block's `leaves`, summed over batches, and at its inputs, by batch.

    A forward pass without outputs is run again. `upstream` are the gradients at the outputs.
    """
    weight_gradients: list[Tensor] = []
    input_gradients: list[Tensor] = []
    for number, output_gradient in enumerate(upstream):
        inputs = forward.inputs[number]
        if forward.outputs:
            output = forward.outputs[number]
        else:
            inputs = inputs.detach().requires_grad_(True)
            with torch.enable_grad():
                output = runner.call(index, number, inputs)
        *at_leaves, at_inputs = torch.autograd.grad(
            output, [*leaves, inputs], output_gradient, allow_unused=True, materialize_grads=True
        )
        if weight_gradients:
            pairs = zip(weight_gradients, at_leaves, strict=True)
            weight_gradients = [total + part for total, part in pairs]
        else:
            weight_gradients = at_leaves
        input_gradients.append(at_inputs)
    return weight_gradients, input_gradients


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make backward passes on a GPU sum in a fixed order, for operations that support it."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns about operations without a fixed order
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)
