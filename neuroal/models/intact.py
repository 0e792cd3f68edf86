"""Check that the files of a checkpoint are whole, before `transformers` reads them."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroal.errors import UserError, first_line
from neuroal.models.completeness import AGAIN
from neuroal.placement.gguf_header import read_header
from neuroal.placement.headers import INDEX, PICKLED_INDEX, weight_files

POINTER = b"version https://git-lfs.github.com/spec/"
"""Beginning of the file that Git LFS puts in the place of one that is not downloaded."""
JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", INDEX, PICKLED_INDEX)
MOST_JSON = 2**29
"""Maximum size of a JSON file of a checkpoint, in bytes."""


def check_configuration(folder: Path) -> None:
    """Raise `UserError` for a damaged JSON file of the checkpoint in `folder`."""
    for name in JSON_FILES:
        if (folder / name).exists():
            _check_json(folder / name)


def check_weights(folder: Path) -> None:
    """Raise `UserError` for a damaged file of weights in `folder`."""
    for path in weight_files(folder):
        if not path.is_file():
            raise _damaged(path, "is named by the index and missing")
        _check_start(path)
        if path.suffix == ".safetensors":
            _check_safetensors(path)
        elif not zipfile.is_zipfile(path):
            raise _damaged(path, "is cut off, or no file of torch.save")


def check_gguf(path: Path) -> None:
    """Raise `UserError` unless `path` has a GGUF header with a possible number of blocks."""
    _check_start(path)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise _damaged(path, "is not a GGUF file")
    try:
        header = read_header(path)
    except (struct.error, LookupError, ValueError, OverflowError, MemoryError) as error:
        raise _damaged(path, f"has a damaged header ({first_line(error)})") from error
    for name, count in header.metadata.items():
        if name.endswith(".block_count") and not 1 <= count <= len(header.types):
            raise _damaged(path, f"has {count} blocks in {len(header.types)} tensors")


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"model.path={path.parent}: {path.name} {problem}; {AGAIN}")


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if not start:
        raise _damaged(path, "is empty")
    if start == POINTER:
        raise UserError(
            f"model.path={path.parent}: {path.name} is a pointer of Git LFS, not the file itself; "
            "run git lfs pull in this folder"
        )


def _check_json(path: Path) -> None:
    """Require a JSON object with the types of the few entries that all models have."""
    if not path.is_file() or path.stat().st_size > MOST_JSON:
        raise _damaged(path, "is no file, or larger than any of its kind")
    _check_start(path)
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"holds a {type(content).__name__}, not an object")
    if path.name in (INDEX, PICKLED_INDEX):
        _check_index(path, content)


def _check_index(path: Path, content: Mapping[str, Any]) -> None:
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise _damaged(path, "has no weight_map")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise _damaged(path, f"names {name!r}, which is no file of its folder")


def _check_safetensors(path: Path) -> None:
    """Require that the header describes exactly the bytes behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise _damaged(path, "is cut off, or no safetensors file")
        try:
            header = json.loads(file.read(length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((entry["data_offsets"][1] for entry in entries), default=0)
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
            raise _damaged(path, f"has a damaged header ({first_line(error)})") from error
    if end != size - 8 - length:
        raise _damaged(path, f"has {size} bytes instead of {8 + length + end}")
