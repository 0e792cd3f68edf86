"""Records in one Parquet file: all that tables read, in a few percent of the space.

A row is a record, with each of its fields as JSON. The ratios of rows, the digests of masks, other
lists in the top-up's report, and folders of the machine are left out. The metadata of the file has
the command that made the records and, for a declared grid, its cases and competitors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neuroal.errors import UserError, first_line, shortened
from neuroal.files.atomic import finite, write_bytes
from neuroal.files.sealed import DAMAGE
from neuroal.records.schema import Record

SUFFIX = ".parquet"
FIELDS = tuple(entry.name for entry in dataclasses.fields(Record) if entry.name != "identity")
CURVES = ("candidates_", "criterion_")
"""Beginnings of the lists in a report that tables read."""
METADATA = b"neuroal"


@dataclass(frozen=True)
class Origin:
    """Where the records of a file come from.

    Attributes:
        command: the command that made them.
        expected: the cases of their grid, as `Expected.to_dict`; empty: of no declared grid.
        names: identity → competitor, as in `Selection.names`.
    """

    command: str = ""
    expected: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def is_packed(path: Path) -> bool:
    """Return whether `path` names a file of packed records."""
    return path.suffix == SUFFIX


def pack(records: Iterable[Record], path: Path, origin: Origin) -> int:
    """Write `records` to `path`; return the size of the file in bytes."""
    rows = sorted((_row(record) for record in records), key=lambda row: row["identity"])
    columns = pa.schema([(name, pa.string()) for name in ("identity", *FIELDS)])
    metadata = {METADATA: json.dumps(dataclasses.asdict(origin), sort_keys=True).encode()}
    table = pa.Table.from_pylist(rows, schema=columns.with_metadata(metadata))
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=19)
    write_bytes(path, buffer.getvalue())
    return buffer.tell()


def _row(record: Record) -> dict[str, str]:
    fields = dataclasses.asdict(record) | {"masks": {}}
    fields["plan"] = {**record.plan, "ratios": {}, "report": _report(record.plan)}
    fields["config"]["out"], fields["config"]["data"] = "runs", {"root": None}
    fields["data"] = {
        name: {key: value for key, value in source.items() if key != "origin"}
        for name, source in record.data.items()
    }
    texts = {name: json.dumps(finite(fields[name]), sort_keys=True) for name in FIELDS}
    return {"identity": record.identity, **texts}


def _report(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in plan.get("report", {}).items()
        if key.startswith(CURVES) or not isinstance(value, list | dict)
    }


def unpacked(path: Path) -> list[Record]:
    """Return the records of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        rows = _opened(path).to_pylist()
        fields = [{name: json.loads(row[name]) for name in FIELDS} for row in rows]
        return [
            Record.from_dict({"identity": row["identity"], **of_row})
            for row, of_row in zip(rows, fields, strict=True)
        ]
    except DAMAGE as error:
        raise UserError(f"out={path}: holds no packed records ({shortened(error)})") from error


def origin_of(path: Path) -> Origin:
    """Return where the records of a file come from.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Origin(**json.loads(_opened(path).schema.metadata[METADATA]))
    except DAMAGE as error:
        raise UserError(f"out={path}: holds no packed records ({shortened(error)})") from error


def _opened(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"out={path}: cannot be read ({reason})") from error
