"""Read a user's own text: plain text, or rows in JSON."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neuroal.data.formats import FORMATS, text_format
from neuroal.data.resolve import JsonLines
from neuroal.errors import UserError, first_line


def read_own_text(path: Path) -> str:
    """Return plain text as it is, or the field ``text`` of all rows, joined by blank lines.

    Raises:
        UserError: the file cannot be read, or is not what its name says (see `text_format`).
    """
    is_text = text_format(path) == "text"
    try:
        return _plain(path) if is_text else "\n\n".join(_texts(path, _rows(path)))
    except UnicodeDecodeError as error:  # its message would repeat the whole content
        raise _not_utf8(path, error.start, error.reason) from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise UserError(
            f"calibration.path={path}: cannot be read ({first_line(error)}); {FORMATS}"
        ) from error


def _plain(path: Path) -> str:
    content = path.read_bytes()
    text = content.decode("utf-8")
    if (zero := content.find(0)) >= 0:  # binary, or UTF-16 without its mark
        raise _not_utf8(path, zero, "a zero byte")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_utf8(path: Path, position: int, reason: str) -> UserError:
    return UserError(f"calibration.path={path}: not UTF-8 at byte {position} ({reason}); {FORMATS}")


def _rows(path: Path) -> Iterable[Any]:
    """Return the rows of a file: one in every line or, if its name allows, those of a list."""
    if path.name.lower().removesuffix(".gz").endswith(".json"):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
        if content.lstrip().startswith(b"["):
            rows: list[Any] = json.loads(content)
            return rows
    return JsonLines(path)


def _texts(path: Path, rows: Iterable[Any]) -> Iterator[str]:
    for number, row in enumerate(rows, 1):
        text = row.get("text") if isinstance(row, Mapping) else None
        if not isinstance(text, str):
            raise UserError(
                f"calibration.path={path}: cannot be read: row {number} has no string in a field "
                f'"text"; {FORMATS}'
            )
        yield text
