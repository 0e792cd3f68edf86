"""Shapes and dtypes of the tensors of a checkpoint, read without their values."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from neuroal.errors import UserError
from neuroal.placement.bitmask import PARTS, SUFFIX, decompress

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class Header:
    """A stored tensor.

    Attributes:
        shape: its shape.
        dtype: name of its dtype in the file.
        floating: whether its values are floating-point numbers.
        file: file that holds it.
        compressed: whether the file holds the parts of `placement.bitmask` instead.
    """

    shape: tuple[int, ...]
    dtype: str
    floating: bool
    file: Path
    compressed: bool = False


def read_headers(folder: Path) -> dict[str, Header]:
    """Return name → `Header` of the checkpoint in `folder`; empty if it has no usual file name.

    Reads the files that `transformers` loads, which prefers safetensors to pickles and a single
    file to shards. A compressed matrix counts as the matrix that it is read as.
    """
    headers: dict[str, Header] = {}
    for path in weight_files(folder):
        headers |= _pickled(path) if path.suffix == ".bin" else _safetensors(path)
    return headers


def weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights in `folder`."""
    for single, index in ((SINGLE, INDEX), (PICKLED, PICKLED_INDEX)):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            weight_map = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
            return [folder / name for name in sorted(set(weight_map.values()))]
    return []


def _safetensors(path: Path) -> dict[str, Header]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries: Mapping[str, Any] = json.loads(file.read(length))
    headers = {
        name: Header(
            tuple(entry["shape"]), entry["dtype"], entry["dtype"].startswith(("F", "BF")), path
        )
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    return _with_matrices(headers, path)


def _with_matrices(headers: dict[str, Header], path: Path) -> dict[str, Header]:
    """Return `headers` with each matrix in place of its compressed parts."""
    stems = {name.removesuffix(".bitmask") for name in headers if name.endswith(".bitmask")}
    for stem in sorted(stems):
        names = {part: f"{stem}.{part}" for part in PARTS}
        if headers.keys() >= set(names.values()):
            with safe_open(path, framework="pt") as file:
                shape = tuple(file.get_tensor(names["shape"]).tolist())
            parts = {part: headers.pop(name) for part, name in names.items()}
            dtype, floating = parts["compressed"].dtype, parts["compressed"].floating
            headers[stem + SUFFIX] = Header(shape, dtype, floating, path, compressed=True)
    return headers


def read_stored(file: Any, name: str, header: Header) -> Tensor:
    """Return the tensor `name` of an open safetensors `file`, decompressed if necessary.

    Raises:
        UserError: the parts of a compressed matrix contradict one another.
    """
    if not header.compressed:
        stored: Tensor = file.get_tensor(name)
        return stored
    stem = name.removesuffix(SUFFIX)
    try:
        return decompress({part: file.get_tensor(f"{stem}.{part}") for part in PARTS})
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"model.path={header.file.parent}: '{name}' in {header.file.name} is damaged "
            f"({error}); download or save the checkpoint again"
        ) from error


def _pickled(path: Path) -> dict[str, Header]:
    tensors = torch.load(path, map_location="meta", weights_only=True)
    return {
        name: Header(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.is_floating_point(),
            path,
        )
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }
