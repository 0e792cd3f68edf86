"""Read the offline files of W&B: protobuf records in LevelDB's log format."""

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
    """Return all records of one ``run-ID.wandb``."""
    rows = []
    for content in _contents(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        rows.append(record)
    return rows


def _contents(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < 7:  # the rest of a block is padding if no header fits
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""


def history(records: list[Any]) -> list[dict[str, Any]]:
    """Return the logged figures of every step."""
    rows = (record.history.item for record in records if record.HasField("history"))
    return [{_name(item): json.loads(item.value_json) for item in row} for row in rows]


def summary(records: list[Any]) -> dict[str, Any]:
    """Return the last value of every figure of the summary."""
    return {
        _name(item): json.loads(item.value_json)
        for record in records
        if record.HasField("summary")
        for item in record.summary.update
    }


def config(records: list[Any]) -> dict[str, Any]:
    """Return the configuration of the run."""
    return {
        item.key: json.loads(item.value_json) for item in run_of(records).config.update if item.key
    }


def axes(records: list[Any]) -> dict[str, str]:
    """Return pattern of figures → figure that is their x axis."""
    metrics = [record.metric for record in records if record.HasField("metric")]
    return {metric.glob_name or metric.name: metric.step_metric for metric in metrics}


def run_of(records: list[Any]) -> Any:
    """Return the record that describes the run."""
    return next(record.run for record in records if record.HasField("run"))


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
