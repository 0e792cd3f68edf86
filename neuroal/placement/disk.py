"""Blocks that are offloaded to a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from errno import ENOENT
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from weakref import finalize

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroal.files.process import temporary_path
from neuroal.placement.checkpoint import Checkpoint, write_shard
from neuroal.placement.host import page_aligned, pin
from neuroal.placement.layout import Layout, absent, moved
from neuroal.placement.offloaded import Source


class DiskBlocks(Source):
    """Source that reads each block on request; a thread reads the announced block in advance.

    Modified blocks are written to a temporary folder beside `scratch`, one file per block, and are
    later read from there. The checkpoint is never changed. Host memory holds one block. `prefixes`
    are the prefixes of the blocks' parameter names in the model.
    """

    immediate = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        layouts: Sequence[Layout],
        prefixes: Sequence[str],
        device: torch.device,
        scratch: Path | None,
    ) -> None:
        self._checkpoint, self._layouts, self._prefixes = checkpoint, layouts, prefixes
        self._staging = page_aligned(max(layout.size for layout in layouts))
        if device.type == "cuda":
            pin(self, self._staging, device)
        self._scratch = scratch
        self._folder: Path | None = None
        self._modified: set[int] = set()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="offload")
        self._announced: tuple[int, Future[Tensor]] | None = None

    def read(self, index: int) -> Tensor:
        announced, self._announced = self._announced, None
        if announced is not None:
            # Wait even for another block, because both reads use the staging memory.
            data = announced[1].result()
            if announced[0] == index:
                return data
        return self._read(index)

    def announce(self, index: int) -> None:
        if self._announced is None:
            self._announced = (index, self._reader.submit(self._read, index))

    def _read(self, index: int) -> Tensor:
        layout = self._layouts[index]
        stored = self.matrices(index)
        for name, view in layout.views(self._staging).items():
            view.copy_(stored.pop(f"{self._prefixes[index]}{name}"))
        return self._staging[: layout.size]

    def matrices(self, index: int) -> dict[str, Tensor]:
        """Read the current matrices of block `index`, by their names in the model."""
        if (path := self.written(index)) is not None:
            if not path.is_file():
                raise FileNotFoundError(ENOENT, "a pruned block was deleted", str(path))
            return load_file(path)
        prefix, layout = self._prefixes[index], self._layouts[index]
        return self._checkpoint.read(f"{prefix}{name}" for name in layout.names)

    def written(self, index: int) -> Path | None:
        """Return the file of block `index` in the scratch folder, or None if it is unmodified."""
        if self._folder is None or index not in self._modified:
            return None
        return self._folder / _file(index)  # also if it vanished: the checkpoint is not pruned

    def write(self, index: int, data: Tensor) -> None:
        if self._folder is None:
            self._folder = _new_folder(self._scratch)
            finalize(self, rmtree, self._folder, ignore_errors=True)
        part = self._folder / f"{_file(index)}.part"
        prefix, views = self._prefixes[index], self._layouts[index].views(data)
        write_shard(part, {f"{prefix}{name}": view for name, view in views.items()})
        part.rename(self._folder / _file(index))
        self._modified.add(index)

    def resting(self, index: int) -> dict[str, Tensor]:
        return {
            name: absent(view.shape, view.dtype)
            for name, view in self._layouts[index].views(self._staging).items()
        }


def _new_folder(scratch: Path | None) -> Path:
    if scratch is None:
        return Path(mkdtemp(prefix="neuroal-"))
    folder = temporary_path(scratch)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _file(index: int) -> str:
    return f"block-{index:05d}.safetensors"


def materialise(
    model: PreTrainedModel, blocks: nn.ModuleList, checkpoint: Checkpoint, device: torch.device
) -> None:
    """Load the weights of a model from the meta device to `device`.

    The matrices of the blocks become placeholders (`absent`) on the host.
    """
    matrices = {id(parameter) for block in blocks for _, parameter in moved(block)}
    tied = _tied(model, checkpoint)
    stored = set(model.state_dict())  # excludes the buffers that a model computes itself
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) in matrices:
            checkpoint.require(name)
            tensor = absent(parameter.shape, parameter.dtype)
        elif name in tied:
            continue
        else:
            tensor = checkpoint.read([name])[name].to(device, parameter.dtype, copy=True)
        _set(model, name, nn.Parameter(tensor, requires_grad=False))
    for name, buffer in list(model.named_buffers()):
        in_checkpoint = name in stored and checkpoint.find(name) is not None
        _set(model, name, (checkpoint.read([name])[name] if in_checkpoint else buffer).to(device))
    model.tie_weights(recompute_mapping=False)


def _tied(model: PreTrainedModel, checkpoint: Checkpoint) -> set[str]:
    """Return the names of the parameters to tie to others, as the configuration declares.

    As in `transformers`, a parameter that the checkpoint stores with values of its own is not tied.
    """
    declared: dict[str, str] = model.all_tied_weights_keys
    for name, source in list(declared.items()):
        if checkpoint.find(name) is not None and checkpoint.find(source) is not None:
            own, shared = (checkpoint.read([key])[key] for key in (name, source))
            if not torch.equal(own, shared):
                del declared[name]
    return set(declared)


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, tensor)
