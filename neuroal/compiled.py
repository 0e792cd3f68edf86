"""Blocks through `torch.compile`: between the matrix products, fewer passes over the activations.

All blocks of a model share one compiled graph, as do dense and pruned weights, and windows of
different lengths. The inputs of the linears are outputs of the graph; where the block's own output
is not asked for, the compiler drops whatever leads to nothing else, such as the last product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

ENOUGH_WORK = 5e11
"""Floating-point operations of a block's products from which on compiling pays for itself."""
_GRAPHS = 64
"""Graphs kept for one function: (outputs or not) × (kinds of blocks) × (shapes) × (devices)."""

_seen: list[Tensor] = []
_alone = Lock()
"""Candidates may be measured in threads, one a device."""


@dataclass(frozen=True)
class CallOrder:
    """In which order a block calls its linears, each once.

    Attributes:
        keys: of the linears, as called.
        leader: for each of them, the position of the first that was given the same tensor.
    """

    keys: tuple[str, ...]
    leader: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BlockCall:
    """How a block is called, but for the hidden states.

    Attributes:
        args: positional arguments that follow the hidden states.
        kwargs: keyword arguments.
        keyword: under which the hidden states go in; None: first positional.
        returns_tuple: whether the hidden states come back as the first of a tuple.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    keyword: str | None
    returns_tuple: bool

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        if self.keyword is None:
            output = block(hidden, *self.args, **self.kwargs)
        else:
            output = block(*self.args, **{self.keyword: hidden}, **self.kwargs)
        result: Tensor = output[0] if self.returns_tuple else output
        return result


class CompiledBlocks:
    """Runs blocks compiled; once that fails, it says so and takes no more.

    Args:
        backend: of `torch.compile`.
        least_work: floating-point operations of a block's products below which it stays as it is.
        devices: types of devices on which blocks are compiled.

    Attributes:
        runs: of blocks, compiled.
    """

    def __init__(
        self,
        backend: str | Callable[..., Any] = "inductor",
        least_work: float = ENOUGH_WORK,
        devices: Sequence[str] = ("cuda",),
    ) -> None:
        self._backend, self._least_work, self._devices = backend, least_work, devices
        self._broken = False
        self.runs = 0

    def takes(self, weights: int, hidden: Tensor) -> bool:
        """Whether a block with that many prunable weights is compiled for `hidden`."""
        work = 2 * weights * hidden.shape[:-1].numel()
        return not self._broken and hidden.device.type in self._devices and work >= self._least_work

    @torch.no_grad()
    def run(
        self,
        block: nn.Module,
        linears: Sequence[nn.Module],
        order: CallOrder,
        call: BlockCall,
        hidden: Tensor,
        *,
        outputs: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]] | None:
        """Output of `block` (None unless asked for) and the input of each linear, by key.

        Returns None if the block cannot be compiled.
        """
        function = _compiled(self._backend)
        _allow_any_length(call, hidden)
        with _alone:
            try:
                with _recording(linears):
                    output, inputs = function(block, call, hidden, order.leader, outputs)
            except torch._dynamo.exc.TorchDynamoException as error:
                self._broken = True
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                warnings.warn(f"blocks run uncompiled, which is slower: {reason}", stacklevel=2)
                return None
            finally:
                _seen.clear()
        self.runs += 1
        return output, {
            key: inputs[place] for key, place in zip(order.keys, order.leader, strict=True)
        }


def _traced(
    block: nn.Module,
    call: Callable[[nn.Module, Tensor], Tensor],
    hidden: Tensor,
    leader: tuple[int, ...],
    outputs: bool,
) -> tuple[Tensor | None, dict[int, Tensor]]:
    _seen.clear()
    output = call(block, hidden)
    inputs = {place: _seen[place] for place in sorted(set(leader))}
    _seen.clear()
    return (output if outputs else None), inputs


@lru_cache(maxsize=4)
def _compiled(
    backend: str | Callable[..., Any],
) -> Callable[..., tuple[Tensor | None, Mapping[int, Tensor]]]:
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    # Round where the uncompiled block rounds, so that criteria do not depend on the compiler.
    options: Any = {"emulate_precision_casts": True} if backend == "inductor" else None
    return torch.compile(_traced, backend=backend, options=options)


def _allow_any_length(call: BlockCall, hidden: Tensor) -> None:
    """Let the graph that is made for `hidden` (windows, seqlen, hidden) hold for other lengths."""
    length = hidden.shape[1]
    torch._dynamo.maybe_mark_dynamic(hidden, 1)
    for value in tree_leaves((call.args, dict(call.kwargs))):
        if isinstance(value, Tensor):
            for dim in (dim for dim, size in enumerate(value.shape) if size == length):
                torch._dynamo.maybe_mark_dynamic(value, dim)


def _recording_forward(self: nn.Linear, x: Tensor) -> Tensor:
    _seen.append(x)
    return nn.functional.linear(x, self.weight, self.bias)


@contextmanager
def _recording(linears: Sequence[nn.Module]) -> Iterator[None]:
    """Let `linears` note their inputs, in a way that `torch.compile` sees through."""
    for linear in linears:
        linear.forward = MethodType(_recording_forward, linear)
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward
