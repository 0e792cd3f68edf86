"""Join the input statistics of several devices, each of which has run its share of the windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.parallel.peers import Share


def joined_statistics(
    statistics: Mapping[str, InputStatistics], share: Share
) -> dict[str, InputStatistics]:
    """Return the statistics over the windows of all devices, by key of the linear.

    Statistics with one row per window are joined in the order of the windows and are those of one
    device. A Gram matrix is a sum over the windows of a device, and the sums are added in the order
    of the devices, so its last bits depend on the number of devices.

    Raises:
        UserError: the windows of some devices do not reach a linear, as in a mixture of experts, or
            reach it with other tokens than each once.
    """
    if share.whole:
        return dict(statistics)
    keys = crc32(" ".join(statistics).encode())
    partial = any(inputs.tokens is not None for inputs in statistics.values())
    numbers, partials = share.of_all(torch.tensor([[keys, int(partial)]])).unbind(1)
    if bool(partials.any()):
        raise UserError(
            "devices: some linears do not see every token once, as in a mixture of experts; use "
            "devices=1"
        )
    if len(numbers.unique()) > 1:
        raise UserError(
            "devices: the windows of the devices do not reach the same linears; use devices=1, or "
            "more windows"
        )
    joined: dict[int, InputStatistics] = {}  # linears with one input share its statistics
    for inputs in statistics.values():
        if id(inputs) not in joined:
            joined[id(inputs)] = _joined(inputs, share)
    return {key: joined[id(inputs)] for key, inputs in statistics.items()}


def _joined(inputs: InputStatistics, share: Share) -> InputStatistics:
    tensors: dict[str, Any] = {}
    for field in dataclasses.fields(inputs):
        values = getattr(inputs, field.name)
        if field.name == "gram" and values is not None:
            (tensors["gram"],) = share.sums([values])
        elif isinstance(values, Tensor):
            tensors[field.name] = share.joined(values)
    return dataclasses.replace(inputs, memo={}, **tensors)
