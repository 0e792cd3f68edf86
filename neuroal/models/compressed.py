"""Checkpoints whose sparse matrices are stored as a bit mask and their nonzero values.

The layout is that of the package `compressed-tensors` (format ``sparse-bitmask``), which wrote and
read it up to version 0.14 and is not needed here.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from neuroal.placement.bitmask import SUFFIX, compress, is_smaller
from neuroal.placement.headers import INDEX, Header, read_headers, read_stored, weight_files

FORMAT = "sparse-bitmask"
"""Name of the layout in ``config.json``."""


def compress_folder(folder: Path, structure: str = "unstructured") -> list[str]:
    """Compress the checkpoint in `folder` in place, shard by shard.

    Compresses each matrix named ``X.weight`` that becomes smaller, and enters the format into
    ``config.json``.

    Args:
        folder: folder of a safetensors checkpoint.
        structure: pattern of the zeros, such as ``2:4``.

    Returns:
        Names of the compressed matrices.
    """
    weight_map: dict[str, str] = {}
    size = 0
    for path in weight_files(folder):
        tensors = _compress_shard(path)
        weight_map |= dict.fromkeys(tensors, path.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if (folder / INDEX).is_file():
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))
    names = sorted(n for n, header in read_headers(folder).items() if header.compressed)
    _enter_format(folder / "config.json", names, structure)
    return names


def _compress_shard(path: Path) -> dict[str, Tensor]:
    """Replace the file `path` by its compressed content, and return that."""
    tensors: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (the file is not a mapping)
            tensor = file.get_tensor(name)
            if name.endswith(SUFFIX) and is_smaller(tensor):
                stem = name.removesuffix(SUFFIX)
                tensors |= {f"{stem}.{part}": value for part, value in compress(tensor).items()}
            else:
                tensors[name] = tensor
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"format": "pt"})
    os.replace(part, path)  # a hard link of the previous file keeps its content
    return tensors


def _enter_format(path: Path, names: list[str], structure: str) -> None:
    """Enter the format of matrices `names` into the ``config.json`` at `path`."""
    sparsity_config = {
        "format": FORMAT,
        "sparsity_structure": structure,
        "targets": [name.removesuffix(SUFFIX) for name in names],
        "ignore": [],
    }
    content = json.loads(path.read_text(encoding="utf-8"))
    content["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "dense",
        "sparsity_config": sparsity_config,
    }
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def is_compressed(config: Any) -> bool:
    """Return whether the checkpoint of a model's configuration is compressed, and not quantised."""
    stored = getattr(config, "quantization_config", None)
    if not isinstance(stored, dict) or stored.get("config_groups"):
        return False
    sparsity = stored.get("sparsity_config")
    return isinstance(sparsity, dict) and sparsity.get("format") == FORMAT


def without_format(config: Any) -> Any:
    """Return a copy of the configuration of a compressed checkpoint, as of its dense model."""
    dense = copy.deepcopy(config)
    del dense.quantization_config
    return dense


def from_compressed(
    files: Path, config: Any, dtype: Any, trust_remote_code: bool
) -> tuple[Any, dict[str, Any]]:
    """Load the model of a compressed checkpoint into host memory.

    Args:
        files: folder of the checkpoint.
        config: configuration of the dense model.
        dtype: dtype of the weights, or ``auto``.
        trust_remote_code: run code that the checkpoint contains.

    Returns:
        The model, and the differences between it and the checkpoint as `transformers` reports them.

    Raises:
        UserError: a compressed matrix is damaged.
    """
    tensors: dict[str, Tensor] = {}
    by_file: dict[Path, dict[str, Header]] = {}
    for name, header in read_headers(files).items():
        by_file.setdefault(header.file, {})[name] = header
    for path, headers in by_file.items():
        with safe_open(path, framework="pt") as file:
            tensors |= {name: read_stored(file, name, header) for name, header in headers.items()}
    with torch.device("meta"):  # allocates nothing
        empty = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )
    model, info = type(empty).from_pretrained(
        None,
        config=copy.deepcopy(config),
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    if (files / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(files)
    return model, info
