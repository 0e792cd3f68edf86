"""Offload the blocks of a model to host memory, other devices or disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from neuroal.errors import UserError
from neuroal.models.adapter import find_blocks
from neuroal.models.completeness import (
    AGAIN,
    Comparison,
    check_complete,
    check_layers,
    check_shapes,
)
from neuroal.placement.base import placement_of, set_placement
from neuroal.placement.checkpoint import Checkpoint, ShardWriter
from neuroal.placement.devices import DeviceBlocks
from neuroal.placement.disk import DiskBlocks, materialise
from neuroal.placement.headers import read_headers
from neuroal.placement.host import HostBlocks
from neuroal.placement.layout import Layout, moved
from neuroal.placement.offloaded import Offloaded, Source


def place_on_host(model: PreTrainedModel, device: torch.device) -> Offloaded:
    """Offload the matrices of the blocks to host memory; move all other tensors to `device`."""
    return _offload(model, device, lambda layouts: HostBlocks(layouts, device))


def place_on_devices(model: PreTrainedModel, devices: Sequence[torch.device]) -> Offloaded:
    """Offload the matrices of the blocks to several devices; move all other tensors to the first.

    Raises:
        UserError: the blocks do not fit into the memory of the devices.
    """
    return _offload(model, devices[0], lambda layouts: DeviceBlocks(layouts, devices))


def _offload(
    model: PreTrainedModel,
    device: torch.device,
    source_of: Callable[[Sequence[Layout]], Source],
) -> Offloaded:
    _, blocks = find_blocks(model)
    matrices = {id(parameter) for block in blocks for _, parameter in moved(block)}
    for parameter in model.parameters():
        if id(parameter) not in matrices:
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    layouts = [Layout(block) for block in blocks]
    return _set_offloaded(model, blocks, layouts, source_of(layouts), device)


def open_on_disk(
    folder: Path,
    config: Any,
    dtype: torch.dtype | None,
    device: torch.device,
    scratch: Path | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a model from safetensors, reading the matrices of each block only when it runs.

    The model is in evaluation mode and has no gradients.

    Args:
        folder: folder of the checkpoint.
        config: configuration of the model.
        dtype: dtype of the weights; None keeps the dtype of the checkpoint.
        device: device on which the blocks compute.
        scratch: path beside which the temporary folder for modified blocks is made; None: in the
            system's folder.
        trust_remote_code: run code that the checkpoint contains.
    """
    headers, where = read_headers(folder), f"model.path={folder}"
    check_layers(config, where, headers)
    check_shapes(config, where, headers, trust_remote_code)
    # Create real buffers, because a checkpoint lacks the buffers that a model computes itself.
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=trust_remote_code
        )
    name, blocks = find_blocks(model)
    checkpoint = Checkpoint(folder, model.base_model_prefix)
    check_complete(model, where, _compare(model, checkpoint), checkpoint.headers)
    prefixes = [f"{name}.{index}." for index in range(len(blocks))]
    if dtype is None:
        first = f"{prefixes[0]}{next(moved(blocks[0]))[0]}"
        dtype = checkpoint.read([first])[first].dtype
    for parameter in model.parameters():  # buffers stay in float32
        parameter.data = parameter.data.to(dtype)
    materialise(model, blocks, checkpoint, device)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    layouts = [Layout(block) for block in blocks]
    source = DiskBlocks(checkpoint, layouts, prefixes, device, scratch)
    _set_offloaded(model, blocks, layouts, source, device)
    return model.eval().requires_grad_(False)


def _compare(model: PreTrainedModel, checkpoint: Checkpoint) -> Comparison:
    """Compare the stored tensors with those of the empty `model`."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: checkpoint.find(name) for name in shapes}
    missing = [name for name in shapes if not (stored[name] or stored.get(tied.get(name, "")))]
    unexpected = checkpoint.headers.keys() - stored.values()
    return Comparison(
        missing,
        [
            (name, checkpoint.headers[key].shape, shapes[name])
            for name, key in stored.items()
            if key is not None and checkpoint.headers[key].shape != shapes[name]
        ],
        unexpected,
        f"{AGAIN}, or use offload=blocks if it stores it in another form" if unexpected else AGAIN,
    )


def _set_offloaded(
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
    """Undo `place_on_host` or `place_on_devices`: move all of `model` to `device`."""
    placement = placement_of(model)
    if isinstance(placement, Offloaded):
        placement.release()
        set_placement(model, None)
    model.to(device)


def weights_of(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the entries of ``model.state_dict()``, reading offloaded blocks one at a time.

    Use each tensor before advancing the iterator.
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
    """Write the configuration and the weights of an offloaded model, one block at a time.

    The tensors of a model that was converted when it was loaded (experts, which a checkpoint
    stores one by one) are converted back.
    """
    placement = placement_of(model)
    assert isinstance(placement, Offloaded)
    blocks_name, blocks = find_blocks(model)
    matrices = {id(parameter) for block in blocks for _, parameter in moved(block)}
    stored = set(model.state_dict())  # excludes the buffers that a model computes itself
    parameters = {name: p for name, p in model.named_parameters() if id(p) not in matrices}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in stored}
    writer = ShardWriter(folder, len(blocks) + 1)
    source = placement.source

    def write(tensors: dict[str, Tensor]) -> None:
        from_disk = isinstance(source, DiskBlocks)
        writer.add(tensors if from_disk else revert_weight_conversion(model, tensors))

    write({**parameters, **buffers})
    for index, layout in enumerate(placement.layouts):
        if isinstance(source, DiskBlocks) and (path := source.written(index)) is not None:
            writer.adopt(path, source.matrices(index))
        else:
            views = layout.views(source.read(index))
            write({f"{blocks_name}.{index}.{key}": view for key, view in views.items()})
    writer.close()
    model.config.dtype = model.dtype
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
