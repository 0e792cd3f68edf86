"""Observe one forward pass: what blocks pass on, and in which order they call their linears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neuroal.errors import UserError
from neuroal.execution.compile import CallOrder
from neuroal.models.adapter import DecoderModel, PrunableLinear

PROBE_TOKENS = 8
"""Tokens of the forward pass that is observed."""


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """The form in which a block returns its hidden states.

    Attributes:
        container: type of the sequence that starts with them; None: they are returned alone.
        others: the other values of the sequence, as observed.
    """

    container: type | None = None
    others: Sequence[Any] = ()

    @classmethod
    def of(cls, output: Any) -> BlockOutput:
        if isinstance(output, list):
            return cls(list, output[1:])
        return cls(tuple, output[1:]) if isinstance(output, tuple) else cls()

    def __call__(self, hidden: Tensor) -> Any:
        """Return `hidden` in this form."""
        return hidden if self.container is None else self.container((hidden, *self.others))


@dataclass(frozen=True, eq=False)
class Probe:
    """What one forward pass showed, by block.

    Attributes:
        outputs: forms of the outputs.
        orders: order in which a block calls its linears; None unless it calls each exactly once,
            on every token.
    """

    outputs: Sequence[BlockOutput]
    orders: Sequence[CallOrder | None]


@dataclass(eq=False)
class _Visit:
    """One call of a block."""

    index: int
    hidden: Tensor
    arguments: list[Tensor]
    output: Any = None
    calls: list[tuple[str, Tensor]] = field(default_factory=list)


def probe_of(decoder: DecoderModel, tokens: Tensor) -> Probe:
    """Run the model once on the first of `tokens` (windows, seqlen) and observe its blocks.

    Later calls for the same `decoder` return the same result.

    Raises:
        UserError: the blocks do not run once each, in their order, each on the output of the one
            before, so that they cannot be run one at a time.
    """
    return decoder.once("probe", lambda: _probe(decoder, tokens[:1, :PROBE_TOKENS]))


@torch.no_grad()
def _probe(decoder: DecoderModel, tokens: Tensor) -> Probe:
    visits: list[_Visit] = []
    handles = []
    for index, block in enumerate(decoder.blocks):

        def enter(_m: nn.Module, args: Any, kwargs: Mapping[str, Any], index: int = index) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            arguments = tree_leaves((args, dict(kwargs)))
            visits.append(_Visit(index, hidden, [t for t in arguments if isinstance(t, Tensor)]))

        def leave(_m: nn.Module, _i: Any, output: Any) -> None:
            visits[-1].output = output

        handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(block.register_forward_hook(leave))
    for linear in decoder:

        def call(_m: nn.Module, inputs: Any, linear: PrunableLinear = linear) -> None:
            if visits:
                visits[-1].calls.append((linear.key, inputs[0]))

        handles.append(linear.module.register_forward_pre_hook(call))
    try:
        decoder.model(tokens.to(decoder.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    _check_chain(decoder, visits, tokens.shape)
    orders = [
        _call_order(visit.calls) if _is_regular(visit, linears) else None
        for visit, linears in zip(visits, decoder.linears, strict=True)
    ]
    return Probe([BlockOutput.of(visit.output) for visit in visits], orders)


def _is_regular(visit: _Visit, linears: Sequence[PrunableLinear]) -> bool:
    """Return whether a block calls each of its linears exactly once, on every token.

    Which linears see only some tokens, as experts in a list do, depends on the text.
    """
    tokens = visit.hidden.shape[:2].numel()
    every = all(x.shape[:-1].numel() == tokens for _, x in visit.calls)
    keys = sorted(key for key, _ in visit.calls)
    return every and keys == sorted(linear.key for linear in linears)


def _call_order(calls: Sequence[tuple[str, Tensor]]) -> CallOrder:
    inputs = [id(x) for _, x in calls]  # unique, since all tensors are alive
    return CallOrder(tuple(key for key, _ in calls), tuple(inputs.index(x) for x in inputs))


def _check_chain(decoder: DecoderModel, visits: Sequence[_Visit], shape: torch.Size) -> None:
    """Raise `UserError` unless the blocks can be run one at a time."""
    where = f"model: the blocks '{decoder.blocks_name}' of {type(decoder.model).__name__}"
    order = [visit.index for visit in visits]
    if order != [*range(len(decoder))]:
        raise UserError(
            f"{where} do not run once each and in order on text, but as {_shortened(order)}; "
            "such a model cannot be pruned block by block"
        )
    if visits[0].hidden.shape[:2] != shape:
        raise UserError(
            f"{where} take hidden states of shape {tuple(visits[0].hidden.shape)} for {shape[0]} "
            f"window of {shape[1]} tokens; only (windows, tokens, …) is supported"
        )
    carried: set[int] = set()
    for before, after in pairwise(visits):
        output = before.output
        hidden, *others = output if isinstance(output, tuple | list) else (output,)
        if after.hidden is not hidden and not _same(after.hidden, hidden):
            raise UserError(
                f"{where}: the output of block {before.index} is not the input of block "
                f"{after.index}; such a model cannot be pruned block by block"
            )
        tensors = [value for value in tree_leaves(others) if isinstance(value, Tensor)]
        carried |= {id(tensor) for tensor in tensors if tensor is not hidden}
        if carried & {id(tensor) for tensor in after.arguments}:
            raise UserError(
                f"{where}: block {after.index} reads other values of the blocks before it than "
                "their hidden states; such a model cannot be pruned block by block"
            )


def _same(first: Tensor, second: Any) -> bool:
    return isinstance(second, Tensor) and torch.equal(first, second)


def _shortened(order: Sequence[int]) -> str:
    shown = ", ".join(map(str, order[:8]))
    return f"{shown}, …" if len(order) > 8 else shown or "none"
