"""Read the files that W&B keeps of a run: protobuf records in LevelDB's log format."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> list[Any]:
    """All records of one ``run-ID.wandb``."""
    found = []
    for content in _contents(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        found.append(record)
    return found


def _contents(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place < len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # no header begins so near the end of a block
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""


def history(found: list[Any]) -> list[dict[str, Any]]:
    """What was logged, step by step."""
    rows = (record.history.item for record in found if record.HasField("history"))
    return [{_name(item): json.loads(item.value_json) for item in row} for row in rows]


def summary(found: list[Any]) -> dict[str, Any]:
    """The last value of every figure of the summary."""
    return {
        _name(item): json.loads(item.value_json)
        for record in found
        if record.HasField("summary")
        for item in record.summary.update
    }


def config(found: list[Any]) -> dict[str, Any]:
    """The run's configuration."""
    return {
        item.key: json.loads(item.value_json) for item in run_of(found).config.update if item.key
    }


def run_of(found: list[Any]) -> Any:
    """The record that describes the run."""
    return next(record.run for record in found if record.HasField("run"))


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
