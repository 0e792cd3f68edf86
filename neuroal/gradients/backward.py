"""Forward passes of one block that record a graph, and backward passes through it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from neuroal.execution.compiled_gradients import Reduction
from neuroal.execution.runner import BlockRunner

Sums = dict[str, tuple[Tensor, ...]]
"""Reductions of a block's linears, by key, summed over batches and calls."""


@dataclass(frozen=True, eq=False)
class _Tap:
    """One call of a linear.

    Attributes:
        key: key of the linear.
        x: its input (…, cols).
        edge: place of its output in the graph.
        positions: indices in the batch of the tokens that are routed to it; None: not routed.
    """

    key: str
    x: Tensor
    edge: GradientEdge
    positions: Tensor | None = None

    def reduced(
        self, gradient: Tensor, shape: torch.Size, reduction: Reduction
    ) -> tuple[Tensor, ...]:
        """Return the reduction for δ = `gradient`, of a batch with `shape` (windows, seqlen)."""
        windows, seqlen = shape
        x, delta = (part.reshape(-1, part.shape[-1]) for part in (self.x, gradient))
        if self.positions is not None:
            return reduction.of_tokens(x, delta, self.positions % seqlen)
        if len(x) != windows * seqlen:
            return reduction.of_tokens(x, delta, None)
        return reduction.of_windows(*(part.unflatten(0, (windows, seqlen)) for part in (x, delta)))


@dataclass(frozen=True, eq=False)
class _Call:
    """The forward pass of one block on one batch, with its graph.

    Attributes:
        hidden: input of the block.
        output: output of the block.
        taps: calls of its linears.
    """

    hidden: Tensor
    output: Tensor
    taps: Sequence[_Tap]

    @classmethod
    def record(cls, runner: BlockRunner, index: int, number: int, hidden: Tensor) -> _Call:
        taps: list[_Tap] = []

        def hook(key: str) -> Any:
            def see(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                # An edge instead of the output, which the block may change in place.
                if output.requires_grad:
                    x, *positions = inputs
                    taps.append(_Tap(key, x.detach(), get_gradient_edge(output), *positions))

            return see

        hidden = hidden.detach().requires_grad_(True)
        with ExitStack() as stack:
            for linear in runner.decoder.linears[index]:
                handle = linear.module.register_forward_hook(hook(linear.key))
                stack.callback(handle.remove)
            stack.enter_context(torch.enable_grad())
            output = runner.call(index, number, hidden)
        return cls(hidden, output, taps)


@dataclass(frozen=True, eq=False)
class BlockPass:
    """The forward pass of one block over all batches of a minibatch.

    Attributes:
        inputs: hidden states that enter the block, one tensor per batch.
        calls: graphs, one per batch; empty if none were recorded.
    """

    inputs: Sequence[Tensor]
    calls: Sequence[_Call] = ()

    @classmethod
    def record(cls, runner: BlockRunner, index: int, hidden: Sequence[Tensor]) -> BlockPass:
        """Run block `index` on `hidden` and record the graphs."""
        numbered = enumerate(hidden)
        return cls(hidden, [_Call.record(runner, index, number, part) for number, part in numbered])

    @property
    def outputs(self) -> list[Tensor]:
        """Hidden states that leave the block, without a graph; empty if none was recorded."""
        return [call.output.detach() for call in self.calls]


def walk_back(
    runner: BlockRunner,
    index: int,
    forward: BlockPass,
    upstream: Sequence[Tensor],
    reduction: Reduction,
) -> tuple[Sums, list[Tensor]]:
    """Return the reductions of a block's linears, and the gradients at its inputs by batch.

    A forward pass without a graph is run again, compiled if possible.

    Args:
        runner: the model, with the block's temporary weights unless `forward` has a graph.
        index: index of the block.
        forward: its forward pass.
        upstream: gradients at the outputs, by batch.
        reduction: function of the input and the output gradient of every linear.
    """
    sums: Sums = {}
    input_gradients: list[Tensor] = []
    for number, output_gradient in enumerate(upstream):
        if forward.calls:
            at_hidden = _pull_back(forward.calls[number], output_gradient, reduction, sums)
        else:
            hidden = forward.inputs[number]
            compiled = runner.gradients(index, number, hidden, output_gradient, reduction)
            if compiled is None:
                call = _Call.record(runner, index, number, hidden)
                at_hidden = _pull_back(call, output_gradient, reduction, sums)
            else:
                at_hidden, parts = compiled
                _add(sums, parts)
        input_gradients.append(at_hidden)
    return sums, input_gradients


def _pull_back(call: _Call, output_gradient: Tensor, reduction: Reduction, sums: Sums) -> Tensor:
    """Add the reductions of all linears to `sums`; return the gradient at the block's input."""
    at: list[Any] = [*(tap.edge for tap in call.taps), call.hidden]
    *gradients, at_hidden = torch.autograd.grad(call.output, at, output_gradient, allow_unused=True)
    shape = call.hidden.shape[:2]
    for tap, gradient in zip(call.taps, gradients, strict=True):
        if gradient is not None:
            _add(sums, {tap.key: tap.reduced(gradient, shape, reduction)})
    return torch.zeros_like(call.hidden) if at_hidden is None else at_hidden


def _add(sums: Sums, parts: Mapping[str, tuple[Tensor, ...]]) -> None:
    for key, part in parts.items():
        if key in sums:
            for total, addend in zip(sums[key], part, strict=True):
                total += addend
        else:
            sums[key] = part


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make backward passes on a GPU sum in a fixed order, for operations that support it."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    fill: Any = torch.utils.deterministic
    filled = fill.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns about operations without a fixed order
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling is for programs that read memory before they write it.
        fill.fill_uninitialized_memory = False
        try:
            yield
        finally:
            fill.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(before, warn_only=warned)
