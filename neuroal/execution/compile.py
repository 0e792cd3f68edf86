"""Run decoder blocks through `torch.compile`, which fuses the operations between matrix products.

All blocks of a model share one compiled graph, for dense and pruned weights and for windows of any
length. The graph returns the inputs of the linears. If the output of the block is not requested,
the compiler removes the operations that only the output needs, such as the last product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neuroal.errors import first_line
from neuroal.files.gpu_errors import is_memory_error
from neuroal.models.forwards import replaced_forwards

ENOUGH_WORK = 5e11
"""Minimum number of floating-point operations in a block's products that justifies compiling."""
_GRAPHS = 64
"""Maximum number of graphs: (with output or not) × (kinds of blocks) × (shapes)."""

_inputs: list[Tensor] = []
"""Inputs of the linears of the block that runs, in the order of the calls."""


@dataclass(frozen=True)
class CallOrder:
    """Order in which a block calls its linears, each exactly once."""

    keys: tuple[str, ...]
    leader: tuple[int, ...]
    """For each linear, the position in `keys` of the first one with the same input."""


@dataclass(frozen=True, eq=False)
class BlockCall:
    """Calling convention of a block, and all of its arguments except the hidden states.

    Attributes:
        keyword: keyword of the hidden states; None passes them as the first positional argument.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    keyword: str | None

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        if self.keyword is None:
            output = block(hidden, *self.args, **self.kwargs)
        else:
            output = block(*self.args, **{self.keyword: hidden}, **self.kwargs)
        result: Tensor = output[0] if isinstance(output, tuple | list) else output
        return result


class CompiledBlocks:
    """Runs compiled blocks; after a compile error it warns once and declines all blocks.

    Args:
        backend: backend of `torch.compile`.
        least_work: minimum number of floating-point operations in the products of a block.
        devices: types of the devices on which blocks are compiled.
    """

    def __init__(
        self,
        backend: str | Callable[..., Any] = "inductor",
        least_work: float = ENOUGH_WORK,
        devices: Sequence[str] = ("cuda",),
    ) -> None:
        self.backend, self._least_work, self._devices = backend, least_work, devices
        self._broken = False
        self.runs = 0

    def takes(self, weights: int, hidden: Tensor) -> bool:
        """Return whether a block with so many prunable `weights` is compiled for this input."""
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
        """Return the output of a block (None unless `outputs`) and its linears' inputs, by key.

        Return None if the block cannot be compiled.
        """
        function = compiled(_traced, self.backend)
        _allow_any_length(call, hidden)
        try:
            with replaced_forwards(linears, _recording_forward):
                output, inputs = function(block, call, hidden, order.leader, outputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            if is_memory_error(error):
                raise
            self._broken = True
            warnings.warn(
                f"blocks run uncompiled, which is slower: {first_line(error)}", stacklevel=2
            )
            return None
        finally:
            _inputs.clear()
        self.runs += 1
        return output, {
            key: inputs[leader] for key, leader in zip(order.keys, order.leader, strict=True)
        }


def _traced(
    block: nn.Module,
    call: Callable[[nn.Module, Tensor], Tensor],
    hidden: Tensor,
    leader: tuple[int, ...],
    outputs: bool,
) -> tuple[Tensor | None, dict[int, Tensor]]:
    _inputs.clear()
    output = call(block, hidden)
    inputs = {position: _inputs[position] for position in sorted(set(leader))}
    _inputs.clear()
    return (output if outputs else None), inputs


@lru_cache(maxsize=8)
def compiled(function: Callable[..., Any], backend: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled with `backend`, the same object for the same arguments."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    # Criteria must not depend on the compiler: round like the uncompiled block, and do not choose
    # reductions by their speed, which would differ from process to process.
    options: Any = {"emulate_precision_casts": True, "deterministic": True}
    return torch.compile(
        function, backend=backend, options=options if backend == "inductor" else None
    )


def _allow_any_length(call: BlockCall, hidden: Tensor) -> None:
    """Mark the sequence dimension of all arguments as dynamic: one graph then fits any length."""
    length = hidden.shape[1]
    torch._dynamo.maybe_mark_dynamic(hidden, 1)
    for value in tree_leaves((call.args, dict(call.kwargs))):
        if isinstance(value, Tensor):
            for dim in (dim for dim, size in enumerate(value.shape) if size == length):
                torch._dynamo.maybe_mark_dynamic(value, dim)


def _recording_forward(self: nn.Module, x: Tensor) -> Tensor:
    _inputs.append(x)
    output: Tensor = type(self).forward(self, x)
    return output
