"""Read the header of a GGUF file: its metadata, and types and sizes of its tensors."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMATS = dict(zip(range(8), "BbHhIif?", strict=True)) | {10: "Q", 11: "q", 12: "d"}
"""Types of metadata values → format characters of `struct`."""
STRING, ARRAY = 8, 9
WITHOUT_WEIGHTS = {24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"}
"""Types of tensors that no model stores its weights in."""


@dataclass(frozen=True)
class GgufHeader:
    """Metadata of a GGUF file.

    Attributes:
        metadata: key → value.
        types: tensor → number of its type.
        numel: tensor → number of its entries.
    """

    metadata: dict[str, Any]
    types: dict[str, int]
    numel: dict[str, int]


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file; it is empty if the file has another format.

    The package gguf takes many times as long for large vocabularies.
    """
    with path.open("rb") as file:
        magic, _, tensors, entries = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF":
            return GgufHeader({}, {}, {})
        metadata = {_value(file, STRING): _typed(file) for _ in range(entries)}
        stored = [_tensor(file) for _ in range(tensors)]
    types = {name: kind for name, kind, _ in stored}
    return GgufHeader(metadata, types, {name: numel for name, _, numel in stored})


def _tensor(file: BinaryIO) -> tuple[str, int, int]:
    """Return name, type and number of entries of the next tensor."""
    name: str = _value(file, STRING)
    (dimensions,) = struct.unpack("<I", file.read(4))
    numel = math.prod(struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions)))
    kind, _ = struct.unpack("<IQ", file.read(12))
    return name, int(kind), numel


def _typed(file: BinaryIO) -> Any:
    """Read a value after its type."""
    return _value(file, *struct.unpack("<I", file.read(4)))


def _value(file: BinaryIO, kind: int) -> Any:
    """Read one value of type `kind`."""
    if kind == STRING:
        (length,) = struct.unpack("<Q", file.read(8))
        return file.read(length).decode("utf-8", "replace")
    if kind == ARRAY:
        kind, length = struct.unpack("<IQ", file.read(12))
        if kind in FORMATS:
            code = f"<{length}{FORMATS[kind]}"
            return list(struct.unpack(code, file.read(struct.calcsize(code))))
        return [_value(file, kind) for _ in range(length)]
    code = f"<{FORMATS[kind]}"
    return struct.unpack(code, file.read(struct.calcsize(code)))[0]
