"""Atomic writes: a file is replaced as a whole or not at all. Links are never followed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from neuroal.files.process import remove_abandoned, temporary_path


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` to `path` as JSON, atomically: readers see the old file or the new one."""
    write_bytes(path, json_text(data).encode())


def json_text(data: Mapping[str, Any]) -> str:
    """Return `data` as JSON with sorted keys, indented by one.

    JSON has no NaN and no infinity; they become null.
    """
    return JsonTexts().of(data)


class JsonTexts:
    """JSON texts of objects that share entries; an entry is encoded again only if it changed.

    The plan of a large model has a million numbers, and its record is written after every task. An
    entry has changed if it is another Python object, so entries must not be modified.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Any, str]] = {}

    def of(self, data: Mapping[str, Any]) -> str:
        """Return `json_text(data)`."""
        last, self._last = self._last, {}
        for key in sorted(data):
            value, text = last.get(key, (None, ""))
            unchanged = text and value is data[key]
            self._last[key] = data[key], text if unchanged else _entry(data[key])
        entries = ",".join(f"\n {json.dumps(key)}: {self._last[key][1]}" for key in self._last)
        return f"{{{entries}\n}}" if entries else "{}"


def _entry(value: Any) -> str:
    """Return an entry of an object as JSON, indented by one more."""
    try:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    except ValueError:
        text = json.dumps(finite(value), indent=1, sort_keys=True, allow_nan=False)
    return text.replace("\n", "\n ")


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
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, which takes the name `path` at the end unless an error occurs.

    The new file has a hidden random name and is created exclusively. The folder is created if
    needed. What killed processes left of earlier writes is deleted.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    part = temporary_path(path)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def read_text(path: Path) -> str:
    """Return the text of a file; refuse a symbolic link.

    Raises:
        OSError: there is no such file, it is a link, or it cannot be read.
        ValueError: it is not UTF-8.
    """
    with open_own(path) as file:
        return file.read().decode()


def open_own(path: Path) -> BinaryIO:
    """Open a file for reading, unless it is a symbolic link.

    Raises:
        OSError: there is no such file, it is a link, or it cannot be read.
    """
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def without_ratios(text: str) -> str:
    """Return the JSON of a record without the plan's ratios, which make parsing slow.

    `write_json` indents by one, so a line of two spaces and a brace ends what the line
    ``  "ratios": {`` began; text of another layout is returned unchanged.
    """
    begin = text.find('\n  "ratios": {\n')
    end = text.find("\n  }", begin)
    return text if begin < 0 or end < 0 else f'{text[:begin]}\n  "ratios": {{{text[end:]}'
