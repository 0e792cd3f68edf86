"""Models of which several devices hold copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.group import DeviceGroup
from neuroal.placement.base import Resident, placement_of, set_placement
from neuroal.tracking.progress import Progress


class Replicated(Resident):
    """Keeps all weights on the device; a group of further devices holds copies of them."""

    def __init__(self, model: PreTrainedModel, group: DeviceGroup) -> None:
        super().__init__(model)
        self.group = group


def group_of(model: PreTrainedModel) -> DeviceGroup | None:
    """Return the group of devices that hold `model`; None: only its own device does."""
    placement = placement_of(model)
    return placement.group if isinstance(placement, Replicated) else None


@contextmanager
def starting(devices: Sequence[torch.device]) -> Iterator[DeviceGroup | None]:
    """Start the processes of several devices, which go on while the model is loaded.

    They end with the context. Give the group to `replicated`; None: there is only one device.
    """
    if len(devices) < 2:
        yield None
        return
    group = DeviceGroup(devices)
    try:
        group.launch()
        yield group
    finally:
        group.close()


@contextmanager
def replicated(
    model: PreTrainedModel, devices: Sequence[torch.device], group: DeviceGroup | None = None
) -> Iterator[None]:
    """Let several devices work on `model` inside the context; its own device is the first.

    Args:
        model: the model.
        devices: the devices.
        group: their processes (`starting`); None: they start when they are first needed.

    Raises:
        UserError: `model` offloads its blocks.
    """
    if len(devices) < 2:
        yield
        return
    if placement_of(model).offloads:
        raise UserError(
            f"devices={len(devices)}: every device holds the whole model, and this one offloads "
            "its blocks; use devices=1"
        )
    group = group or DeviceGroup(devices)
    group.model = model
    set_placement(model, Replicated(model, group))
    try:
        yield
    finally:
        set_placement(model, None)
        group.close()


def copy_to_all(model: PreTrainedModel) -> None:
    """Copy the weights of `model` to its other devices, after they were changed on its own."""
    group = group_of(model)
    if group is not None:
        group.refresh()


def together(
    decoder: DecoderModel,
    function: Callable[..., Any],
    *args: Any,
    progress: Progress,
    **kwargs: Any,
) -> Any:
    """Return ``function(decoder, *args, progress=progress, **kwargs)``, run by all devices."""
    group = group_of(decoder.model)
    if group is None:
        return function(decoder, *args, progress=progress, **kwargs)
    return group.run(function, decoder, args, kwargs, progress)
