"""Atomic writes: a file is replaced as a whole or not at all."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` to `path` as JSON, atomically: readers see the old file or the new one.

    JSON has no NaN and no infinity; they are written as null.
    """
    try:
        text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False)
    except ValueError:
        text = json.dumps(finite(data), indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, text.encode())


def finite(value: Any) -> Any:
    """Return `value` with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically, and create the folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def without_ratios(text: str) -> str:
    """Return the JSON of a record without the plan's ratios, which make parsing slow.

    `write_json` indents by one, so a line of two spaces and a brace ends what the line
    ``  "ratios": {`` began; text of another layout is returned unchanged.
    """
    begin = text.find('\n  "ratios": {\n')
    end = text.find("\n  }", begin)
    return text if begin < 0 or end < 0 else f'{text[:begin]}\n  "ratios": {{{text[end:]}'
