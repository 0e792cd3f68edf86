"""Watch a model once: what its blocks return, and how they call their linears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from neuroal.compiled import CallOrder
from neuroal.models.adapter import DecoderModel, PrunableLinear


def probe_blocks(
    subject: DecoderModel, tokens: Tensor
) -> tuple[list[bool], list[CallOrder | None]]:
    """What each block returns (tuple or not), and how it calls its linears, if each just once."""
    returns_tuple = [False] * len(subject)
    calls: list[list[tuple[str, Tensor]]] = [[] for _ in subject.blocks]
    handles = []
    for index, block in enumerate(subject.blocks):

        def note_output(_m: nn.Module, _i: Any, output: Any, index: int = index) -> None:
            returns_tuple[index] = isinstance(output, tuple)

        handles.append(block.register_forward_hook(note_output))
    for linear in subject:

        def note_call(_m: nn.Module, inputs: Any, linear: PrunableLinear = linear) -> None:
            calls[linear.block].append((linear.key, inputs[0]))

        handles.append(linear.module.register_forward_pre_hook(note_call))
    try:
        subject.model(tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    orders = [
        _call_order(found) if sorted(key for key, _ in found) == sorted(lin.key for lin in linears)
        else None
        for found, linears in zip(calls, subject.linears, strict=True)
    ]  # fmt: skip
    return returns_tuple, orders


def _call_order(calls: Sequence[tuple[str, Tensor]]) -> CallOrder:
    inputs = [id(x) for _, x in calls]  # all alive, so no two of them share an id
    return CallOrder(tuple(key for key, _ in calls), tuple(inputs.index(x) for x in inputs))
