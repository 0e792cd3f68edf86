"""Observe one forward pass: what blocks return, and in which order they call their linears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from neuroal.execution.compile import CallOrder
from neuroal.models.adapter import DecoderModel, PrunableLinear


def probe_blocks(
    decoder: DecoderModel, tokens: Tensor
) -> tuple[list[bool], list[CallOrder | None]]:
    """Run the model once on token ids (windows, seqlen) and observe its blocks.

    Return for each block whether it returns a tuple, and the order in which it calls its linears
    (None unless it calls each exactly once).
    """
    returns_tuple = [False] * len(decoder)
    calls: list[list[tuple[str, Tensor]]] = [[] for _ in decoder.blocks]
    handles = []
    for index, block in enumerate(decoder.blocks):

        def record_output(_m: nn.Module, _i: Any, output: Any, index: int = index) -> None:
            returns_tuple[index] = isinstance(output, tuple)

        handles.append(block.register_forward_hook(record_output))
    for linear in decoder:

        def record_call(_m: nn.Module, inputs: Any, linear: PrunableLinear = linear) -> None:
            calls[linear.block].append((linear.key, inputs[0]))

        handles.append(linear.module.register_forward_pre_hook(record_call))
    try:
        decoder.model(tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    orders = [
        _call_order(block_calls)
        if sorted(key for key, _ in block_calls) == sorted(linear.key for linear in linears)
        else None
        for block_calls, linears in zip(calls, decoder.linears, strict=True)
    ]
    return returns_tuple, orders


def _call_order(calls: Sequence[tuple[str, Tensor]]) -> CallOrder:
    inputs = [id(x) for _, x in calls]  # unique, since all tensors are alive
    return CallOrder(tuple(key for key, _ in calls), tuple(inputs.index(x) for x in inputs))
