"""Select devices, and place or copy a model there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.offload import place_on_devices, place_on_host, take_back
from neuroal.placement.base import placement_of
from neuroal.placement.choices import check_offload


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


def replicas(device: torch.device, count: int, offload: str) -> tuple[torch.device, ...]:
    """Return the devices that hold a copy of the model each, `device` first.

    With ``offload=devices`` all of them together hold one model, which `device` computes.
    """
    return (device,) if offload == "devices" else pick_devices(device, count)


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
    if offload not in ("none", "blocks", "devices"):
        raise UserError(f"offload={offload}: must be none, blocks or devices for a model in memory")
    check_offload(offload, devices)
    if offload == "blocks":
        place_on_host(model, resolve_device(device or "auto"))
    elif offload == "devices":
        place_on_devices(model, pick_devices(resolve_device(device or "auto"), devices))
    elif device is not None:
        model.to(resolve_device(device))
    try:
        yield
    finally:
        take_back(model, home)
