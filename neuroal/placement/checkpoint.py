"""Read single tensors of a safetensors checkpoint and write checkpoints shard by shard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuroal.errors import UserError
from neuroal.placement.headers import INDEX, SINGLE, read_headers, read_stored


class Checkpoint:
    """Tensors of a safetensors checkpoint, addressed by the parameter names of the model.

    Args:
        folder: folder with ``model.safetensors``, or with shards and their index.
        prefix: prefix of the parameters of the model without its head (``base_model_prefix``),
            which some checkpoints omit.

    Attributes:
        headers: name in the checkpoint → shape, dtype and file.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        if not any((folder / name).is_file() for name in (SINGLE, INDEX)):
            raise UserError(
                f"offload=disk: {folder} has no {SINGLE} and no {INDEX}; use offload=blocks, or "
                "save the model as safetensors first"
            )
        self.headers = read_headers(folder)

    def find(self, name: str) -> str | None:
        """Return the checkpoint's name of parameter `name`, or None if the tensor is missing."""
        body = name.removeprefix(f"{self._prefix}.")
        candidates = (name, body, f"{self._prefix}.{name}")
        return next((candidate for candidate in candidates if candidate in self.headers), None)

    def require(self, name: str) -> str:
        """Return the checkpoint's name of parameter `name`; raise `UserError` if it is missing."""
        stored_name = self.find(name)
        if stored_name is None:
            raise UserError(
                f"offload=disk: {self._folder} has no tensor '{name}'; the checkpoint is "
                "incomplete, or stores it in another form, which needs offload=blocks"
            )
        return stored_name

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the tensors of parameters `names` in their stored dtype."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.headers[self.require(name)].file, []).append(name)
        tensors: dict[str, Tensor] = {}
        for path, names_in_file in by_file.items():
            with safe_open(path, framework="pt") as file:
                for name in names_in_file:
                    stored_name = self.require(name)
                    tensors[name] = read_stored(file, stored_name, self.headers[stored_name])
        return tensors


class ShardWriter:
    """Writes a safetensors checkpoint, one of `shards` at a time; `close` writes the index."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._folder, self._shards = folder, shards
        self._map: dict[str, str] = {}
        self._bytes = 0

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write `tensors` as the next shard."""
        write_shard(self._next(tensors), tensors)

    def adopt(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Link, or else copy, the existing file `path` of `tensors` as the next shard."""
        target = self._next(tensors)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)

    def _next(self, tensors: Mapping[str, Tensor]) -> Path:
        """Enter `tensors` into the index and return the path of their shard."""
        written = len(set(self._map.values()))
        name = f"model-{written + 1:05d}-of-{self._shards:05d}.safetensors"
        self._map |= dict.fromkeys(tensors, name)
        self._bytes += sum(tensor.nbytes for tensor in tensors.values())
        return self._folder / name

    def close(self) -> None:
        index: dict[str, Any] = {"metadata": {"total_size": self._bytes}, "weight_map": self._map}
        (self._folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, from any device, to one safetensors file."""
    host_tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(host_tensors, path, metadata={"format": "pt"})
