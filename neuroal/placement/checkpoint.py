"""Read single tensors of a safetensors checkpoint, and write checkpoints shard by shard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuroal.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Checkpoint:
    """The tensors of a folder of safetensors, by the model's own names for its parameters.

    Args:
        folder: with ``model.safetensors`` or shards and their index.
        prefix: what a model puts before the names of its body (``base_model_prefix``); a
            checkpoint of the body alone lacks it.

    Raises:
        UserError: there are no safetensors.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder, self._prefix = folder, prefix
        if (folder / INDEX).is_file():
            listed: Mapping[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
            self._files = {name: folder / file for name, file in listed.items()}
        elif (folder / SINGLE).is_file():
            with safe_open(folder / SINGLE, framework="pt") as file:
                self._files = dict.fromkeys(file.keys(), folder / SINGLE)
        else:
            raise UserError(
                f"offload=disk: {folder} has no {SINGLE} and no {INDEX}; use offload=blocks, or "
                "save the model as safetensors first"
            )

    def find(self, name: str) -> str | None:
        """What the checkpoint calls the parameter `name`; None if it has no such tensor."""
        body = name.removeprefix(f"{self._prefix}.")
        candidates = (name, body, f"{self._prefix}.{name}")
        return next((known for known in candidates if known in self._files), None)

    def require(self, name: str) -> str:
        """As `find`.

        Raises:
            UserError: there is no such tensor.
        """
        found = self.find(name)
        if found is None:
            raise UserError(
                f"offload=disk: {self._folder} has no tensor '{name}' (it may store the weights in "
                "another form); use offload=blocks"
            )
        return found

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these parameters, as they are stored."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[self.require(name)], []).append(name)
        found: dict[str, Tensor] = {}
        for path, wanted in by_file.items():
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(self.require(name)) for name in wanted}
        return found


class ShardWriter:
    """Writes a checkpoint into a folder, one shard at a time; `close` adds the index."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._folder, self._shards = folder, shards
        self._map: dict[str, str] = {}
        self._bytes = 0

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the next shard."""
        self._note(tensors)
        write_shard(self._folder / self._name(), tensors)
        self._map |= dict.fromkeys(tensors, self._name())

    def adopt(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Take the file at `path`, which holds `tensors`, as the next shard; it stays there."""
        self._note(tensors)
        target = self._folder / self._name()
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
        self._map |= dict.fromkeys(tensors, self._name())

    def _name(self) -> str:
        written = len(set(self._map.values()))
        return f"model-{written + 1:05d}-of-{self._shards:05d}.safetensors"

    def _note(self, tensors: Mapping[str, Tensor]) -> None:
        self._bytes += sum(part.numel() * part.element_size() for part in tensors.values())

    def close(self) -> None:
        index: dict[str, Any] = {"metadata": {"total_size": self._bytes}, "weight_map": self._map}
        (self._folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file of tensors (from any device)."""
    held = {name: part.detach().cpu().contiguous() for name, part in tensors.items()}
    save_file(held, path, metadata={"format": "pt"})


def stored_dtype(checkpoint: Checkpoint, name: str) -> torch.dtype:
    """The floating-point type of one tensor of a checkpoint."""
    return checkpoint.read([name])[name].dtype
