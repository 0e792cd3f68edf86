"""Give a model a placement: all blocks on the device, or waiting in host memory or on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.adapter import find_blocks
from neuroal.placement.base import placement_of, set_placement
from neuroal.placement.checkpoint import Checkpoint, ShardWriter, stored_dtype
from neuroal.placement.disk import DiskBlocks, materialise, parameters_on_meta
from neuroal.placement.host import HostBlocks
from neuroal.placement.layout import Layout, moved
from neuroal.placement.offloaded import Offloaded, Source


def place_on_host(model: PreTrainedModel, device: torch.device) -> Offloaded:
    """Let the blocks of `model` wait in host memory and compute on `device`, in turn.

    Everything outside of the blocks, and what is small in them, moves to `device`.
    """
    _, blocks = find_blocks(model)
    matrices = {id(parameter) for block in blocks for _, parameter in moved(block)}
    for parameter in model.parameters():
        if id(parameter) not in matrices:
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    layouts = [Layout.of(block) for block in blocks]
    return _placed(model, blocks, layouts, HostBlocks(layouts, device), device)


def open_on_disk(
    folder: Path,
    config: Any,
    dtype: torch.dtype | None,
    device: torch.device,
    scratch: Path | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model of a folder of safetensors whose blocks stay on disk until their turn comes.

    Args:
        folder: of the checkpoint.
        config: the model's.
        dtype: None: the checkpoint's.
        device: where the blocks compute.
        scratch: folder for blocks that are written; None: the system's.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        UserError: no safetensors, or none under the model's own names.
    """
    with parameters_on_meta():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=trust_remote_code
        )
    name, blocks = find_blocks(model)
    checkpoint = Checkpoint(folder, model.base_model_prefix)
    prefixes = [f"{name}.{index}." for index in range(len(blocks))]
    first = next(iter(moved(blocks[0])))[0]
    dtype = dtype or stored_dtype(checkpoint, f"{prefixes[0]}{first}")
    for parameter in model.parameters():  # not the buffers, which a model wants in float32
        parameter.data = parameter.data.to(dtype)
    materialise(model, blocks, checkpoint, device)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    layouts = [Layout.of(block) for block in blocks]
    source = DiskBlocks(checkpoint, layouts, prefixes, device, scratch)
    _placed(model, blocks, layouts, source, device)
    return model.eval().requires_grad_(False)


def _placed(
    model: PreTrainedModel,
    blocks: Iterable[nn.Module],
    layouts: Sequence[Layout],
    source: Source,
    device: torch.device,
) -> Offloaded:
    if not any(layout.size for layout in layouts):
        raise UserError("offload: the blocks have no matrices; use offload=none")
    for index, layout in enumerate(layouts):
        layout.point(source.resting(index))
    placement = Offloaded(list(blocks), layouts, source, device)
    set_placement(model, placement)
    return placement


def take_back(model: PreTrainedModel, device: torch.device) -> None:
    """Undo `place_on_host`: an ordinary model, all of it on `device`."""
    placement = placement_of(model)
    if isinstance(placement, Offloaded):
        placement.release()
        set_placement(model, None)
    model.to(device)


def weights_of(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """What ``model.state_dict()`` has, with the matrices of an offloaded model as they are now.

    Of these only one block is in memory at a time: use each tensor before asking for the next.
    """
    placement = placement_of(model)
    name, _ = find_blocks(model)
    views: dict[str, Tensor] = {}
    current = -1
    for key, tensor in model.state_dict().items():
        index, _, inner = key.removeprefix(f"{name}.").partition(".")
        if isinstance(placement, Offloaded) and key.startswith(f"{name}.") and tensor.dim() >= 2:
            if int(index) != current:
                current = int(index)
                views = placement.layouts[current].views(placement.source.read(current))
            tensor = views.get(inner, tensor)
        yield key, tensor


def save_offloaded(model: PreTrainedModel, folder: Path) -> None:
    """Write the configuration and the weights of an offloaded model, one block at a time."""
    placement = placement_of(model)
    assert isinstance(placement, Offloaded)
    name, blocks = find_blocks(model)
    matrices = {id(parameter) for block in blocks for _, parameter in moved(block)}
    stored = set(model.state_dict())  # leaves out the buffers that a model computes itself
    rest: dict[str, Tensor] = {
        key: part for key, part in model.named_parameters() if id(part) not in matrices
    }
    rest |= {key: part for key, part in model.named_buffers() if key in stored}
    writer = ShardWriter(folder, len(blocks) + 1)
    writer.add(rest)
    source = placement.source
    for index, layout in enumerate(placement.layouts):
        if isinstance(source, DiskBlocks) and (path := source.written(index)) is not None:
            writer.adopt(path, source.matrices(index))
            continue
        views = layout.views(source.read(index))
        writer.add({f"{name}.{index}.{key}": view for key, view in views.items()})
    writer.close()
    model.config.dtype = model.dtype
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
