"""Blocks that wait in a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from unittest.mock import patch
from weakref import finalize

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroal.placement.checkpoint import Checkpoint, write_shard
from neuroal.placement.host import page_aligned, pin
from neuroal.placement.layout import Layout, absent, moved
from neuroal.placement.offloaded import Source


class DiskBlocks(Source):
    """Reads each block when it is needed; while one is at work, a thread reads the next.

    Blocks that are written go to a scratch folder, one file each, and are read from there from
    then on; the checkpoint is never touched. Host memory holds one block.

    Args:
        checkpoint: the model's weights.
        layouts: of the blocks.
        prefixes: of each block's names in the model.
        device: where the blocks compute.
        scratch: folder in which the scratch folder is made; None: the system's.
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
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="offload")
        self._announced: tuple[int, Future[Tensor]] | None = None

    def read(self, index: int) -> Tensor:
        announced, self._announced = self._announced, None
        if announced is not None:
            found = announced[1].result()  # whatever it reads, it is done with the memory then
            if announced[0] == index:
                return found
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
        """The matrices of block `index` by the model's names, as they are stored now."""
        written = self.written(index)
        if written is not None:
            return load_file(written)
        return self._checkpoint.read(self.names(index))

    def names(self, index: int) -> list[str]:
        """The model's names of the matrices of block `index`."""
        return [f"{self._prefixes[index]}{name}" for name in self._layouts[index].names]

    def written(self, index: int) -> Path | None:
        """The file of block `index` if it has been written."""
        path = self._folder / _file(index) if self._folder else None
        return path if path is not None and path.is_file() else None

    def write(self, index: int, data: Tensor) -> None:
        views = self._layouts[index].views(data)
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix=".offload-", dir=self._scratch))
            finalize(self, rmtree, self._folder, ignore_errors=True)
        part = self._folder / f"{_file(index)}.part"
        write_shard(part, {f"{self._prefixes[index]}{name}": v for name, v in views.items()})
        part.rename(self._folder / _file(index))

    def resting(self, index: int) -> dict[str, Tensor]:
        return {
            name: absent(view.shape, view.dtype)
            for name, view in self._layouts[index].views(self._staging).items()
        }


def _file(index: int) -> str:
    return f"block-{index:05d}.safetensors"


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules made inside the context have their parameters on the meta device.

    Their buffers are real, as no checkpoint holds those that a model computes itself.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    with patch.object(nn.Module, "register_parameter", on_meta):
        yield


def materialise(
    model: PreTrainedModel, blocks: nn.ModuleList, checkpoint: Checkpoint, device: torch.device
) -> None:
    """Give a model made by `parameters_on_meta` all weights but the matrices of its blocks.

    These get stand-ins (`absent`) on the host. Everything else is on `device` afterwards.

    Raises:
        UserError: a weight is missing in the checkpoint.
    """
    matrices = {id(parameter) for block in blocks for _, parameter in moved(block)}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    stored = set(model.state_dict())  # leaves out the buffers that a model computes itself
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) in matrices:
            checkpoint.require(name)
            found = absent(parameter.shape, parameter.dtype)
        elif name in tied:
            continue
        else:
            found = checkpoint.read([name])[name].to(device, parameter.dtype, copy=True)
        _set(model, name, nn.Parameter(found, requires_grad=False))
    for name, buffer in list(model.named_buffers()):
        known = name in stored and checkpoint.find(name) is not None
        _set(model, name, (checkpoint.read([name])[name] if known else buffer).to(device))
    model.tie_weights()


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    home, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(home), leaf, tensor)
