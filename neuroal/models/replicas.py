"""Copies of a model on several devices."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel


def spread(device: torch.device, count: int) -> tuple[torch.device, ...]:
    """`count` devices: `device`, then other GPUs; on a CPU that many workers.

    Raises:
        UserError: there are not so many GPUs.
    """
    if device.type != "cuda":
        return (device,) * count
    there, first = torch.cuda.device_count(), device.index or 0
    if count > there:
        raise UserError(f"devices={count}: this machine has {there} CUDA devices")
    others = [index for index in range(there) if index != first]
    return tuple(torch.device("cuda", index) for index in (first, *others)[:count])


def replica(subject: DecoderModel, device: torch.device) -> DecoderModel:
    """The same model on `device`; its weights are copied only if they are not there already."""
    known: dict[int, Any] = {}
    for parameter in subject.model.parameters():
        moved = nn.Parameter(parameter.data.to(device), parameter.requires_grad)
        known[id(parameter)] = moved
    for buffer in subject.model.buffers():
        known[id(buffer)] = buffer.to(device)
    return subject.of(copy.deepcopy(subject.model, known))
