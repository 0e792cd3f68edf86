"""Backward passes of decoder blocks through `torch.compile`.

One graph holds the forward pass of a block, its backward pass, and a reduction of the input and
the output gradient of every linear. So nothing is stored between the passes, and the compiler
fuses the operations between the matrix products of both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.errors import first_line
from neuroal.execution.compile import BlockCall, CallOrder, CompiledBlocks, compiled
from neuroal.files.gpu_errors import is_memory_error
from neuroal.models.forwards import replaced_forwards
from neuroal.models.linears import PrunableLinear

Reduce = Callable[..., tuple[Tensor, ...]]
"""Function of a linear's input x and output gradient δ, both (windows, seqlen, features)."""

_inputs: list[Tensor] = []
_taps: list[Tensor] = []
"""Inputs of the linears of the block that runs, and zeros that are added to their outputs."""


@dataclass(frozen=True, eq=False)
class Reduction:
    """A function of every linear's input and output gradient, computed in a backward pass.

    Attributes:
        function: a function at module level, so that all passes share one graph.
        skip: number of leading positions of every window that it leaves out, its third argument;
            None: it takes all positions and has no such argument.
    """

    function: Reduce
    skip: int | None = None

    @property
    def constants(self) -> tuple[int, ...]:
        """Arguments of the function after the input and the gradient."""
        return () if self.skip is None else (self.skip,)

    def of_windows(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Reduce x and δ, both (windows, seqlen, features)."""
        return self.function(x, gradient, *self.constants)

    def of_tokens(self, x: Tensor, gradient: Tensor, place: Tensor | None) -> tuple[Tensor, ...]:
        """Reduce x and δ of some tokens, both (tokens, features).

        `place` (tokens,) is their position in their window; None: unknown, and none is left out.
        """
        if self.skip is None:
            return self.function(x[None], gradient[None])
        if place is not None:
            x, gradient = (part[place >= self.skip] for part in (x, gradient))
        return self.function(x[None], gradient[None], 0)


def weight_gradient(x: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient at the weight of a linear: δᵀ·x, (rows, cols)."""
    return (gradient.flatten(0, -2).T @ x.flatten(0, -2),)


class CompiledGradients:
    """Runs compiled backward passes; after a compile error it warns once and declines all blocks.

    Args:
        blocks: decides which blocks are compiled, and with which backend.
    """

    def __init__(self, blocks: CompiledBlocks) -> None:
        self._blocks = blocks
        self._broken = False
        self.runs = 0

    def takes(self, weights: int, hidden: Tensor) -> bool:
        """Return whether a block with so many prunable `weights` is compiled for this input."""
        return not self._broken and self._blocks.takes(weights, hidden)

    @torch.no_grad()
    def run(
        self,
        block: nn.Module,
        linears: Sequence[PrunableLinear],
        order: CallOrder,
        call: BlockCall,
        hidden: Tensor,
        upstream: Tensor,
        reduction: Reduction,
    ) -> tuple[Tensor, dict[str, tuple[Tensor, ...]]] | None:
        """Return the gradient at `hidden`, and the reduction of every linear by key.

        Return None if the block cannot be compiled.

        Args:
            block: the block.
            linears: its prunable linears in the order of their calls.
            order: the order of the calls.
            call: arguments of the block other than the hidden states.
            hidden: input of the block, (windows, seqlen, hidden).
            upstream: gradient at its output, of the same shape.
            reduction: what to compute for each linear.
        """
        function = compiled(_traced, self._blocks.backend)
        rows = tuple(linear.rows for linear in linears)
        try:
            with replaced_forwards([linear.module for linear in linears], _tapped_forward):
                at_hidden, parts = function(
                    block, call, hidden, upstream, rows, reduction.function, reduction.constants
                )
        except torch._dynamo.exc.TorchDynamoException as error:
            if is_memory_error(error):
                raise
            self._broken = True
            warnings.warn(
                f"backward passes run uncompiled, which is slower: {first_line(error)}",
                stacklevel=2,
            )
            return None
        finally:
            _inputs.clear()
            _taps.clear()
        self.runs += 1
        return at_hidden, dict(zip(order.keys, parts, strict=True))


def _traced(
    block: nn.Module,
    call: Callable[[nn.Module, Tensor], Tensor],
    hidden: Tensor,
    upstream: Tensor,
    rows: tuple[int, ...],
    reduce: Reduce,
    constants: tuple[int, ...],
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    def forward(hidden: Tensor, *taps: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        _inputs.clear()
        _taps.clear()
        _taps.extend(taps)
        output = call(block, hidden)
        inputs = tuple(_inputs)
        _inputs.clear()
        _taps.clear()
        return output, inputs

    # The gradient at zeros that are added to an output is the gradient at the output. The compiler
    # removes the additions.
    taps = [hidden.new_zeros((*hidden.shape[:-1], width)) for width in rows]
    pulled: Any = torch.func.vjp(forward, hidden, *taps, has_aux=True)
    _, pull_back, inputs = pulled
    at_hidden, *gradients = pull_back(upstream)
    parts = [
        reduce(x.reshape(gradient.shape[:-1] + x.shape[-1:]), gradient, *constants)
        for x, gradient in zip(inputs, gradients, strict=True)
    ]
    return at_hidden, parts


def _tapped_forward(self: nn.Module, x: Tensor) -> Tensor:
    tap = _taps[len(_inputs)]
    _inputs.append(x)
    output: Tensor = type(self).forward(self, x)
    return output + tap.reshape(output.shape)
