"""Select devices, and place or copy a model there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.offload import place_on_host, take_back
from neuroal.placement.base import placement_of


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; ``auto`` selects the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: must be auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(f"device={name}: this machine has {count} CUDA devices; use device=cpu")
    return device


def pick_devices(device: torch.device, count: int) -> tuple[torch.device, ...]:
    """Return `count` devices: `device` followed by other GPUs, or `count` times the CPU."""
    if device.type != "cuda":
        return (device,) * count
    available, first = torch.cuda.device_count(), device.index or 0
    if count > available:
        raise UserError(
            f"devices={count}: this machine has {available} CUDA devices; "
            f"use devices={available} or fewer"
        )
    others = [index for index in range(available) if index != first]
    return tuple(torch.device("cuda", index) for index in (first, *others)[:count])


@contextmanager
def placed(
    model: PreTrainedModel, device: str | None, offload: str, devices: int
) -> Iterator[None]:
    """Place `model` by the parameters of `neuroal.prune`, and move it back after the context.

    A model that already offloads its blocks keeps its placement.
    """
    home = model.device
    if placement_of(model).offloads or (offload == "none" and device is None):
        yield
        return
    if offload not in ("none", "blocks"):
        raise UserError(f"offload={offload}: must be none or blocks for a model in memory")
    if offload == "blocks":
        if devices > 1:
            raise UserError(f"offload=blocks: needs devices=1, not devices={devices}")
        place_on_host(model, resolve_device(device or "auto"))
    elif device is not None:
        model.to(resolve_device(device))
    try:
        yield
    finally:
        take_back(model, home)
