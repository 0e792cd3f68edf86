"""JSON files with a digest of their content, so that damage is detected when they are read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

from neuroal.files.atomic import JsonTexts, read_text, write_bytes

Content = TypeVar("Content")
SEAL = "sha256"
BEGIN = f'{{\n "{SEAL}": "'
"""Beginning of a sealed file; the digest of the text without this entry follows."""
DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    *(EOFError, BadZipFile),
)
"""Errors of reading a damaged file; `RecursionError` is a `RuntimeError`."""
log = logging.getLogger(__name__)


def write_sealed(path: Path, data: Mapping[str, Any], texts: JsonTexts | None = None) -> None:
    """Write `data` to `path` as JSON whose first entry is the digest of the rest, atomically.

    `texts` encodes the entries of several such objects; None: each is encoded by itself.
    """
    text = (texts or JsonTexts()).of(data)
    write_bytes(path, f'{BEGIN}{_digest(text)}",\n{text[2:]}'.encode())


def unsealed(text: str) -> str:
    """Return the text of a JSON file without its seal; other text is returned unchanged.

    Raises:
        ValueError: the text does not match its digest.
    """
    if not text.startswith(BEGIN):
        return text
    seal, _, rest = text[len(BEGIN) :].partition('",\n')
    if seal != _digest(f"{{\n{rest}"):
        raise ValueError("its content does not match its digest")
    return f"{{\n{rest}"


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return the data that `write_sealed` wrote.

    None: there is no file, or its content does not match its digest. The latter is logged.
    """

    def read() -> dict[str, Any] | None:
        text = read_text(path)
        data: dict[str, Any] = json.loads(unsealed(text))
        if text.startswith(BEGIN) or data.pop(SEAL) == _digest(json.dumps(data, sort_keys=True)):
            return data  # the latter: as versions before 0.3 sealed
        return None

    return undamaged(path, read, "its content is computed again")


def undamaged(path: Path, read: Callable[[], Content | None], remedy: str) -> Content | None:
    """Return `read()`, the content of the file `path`.

    None: there is no file, or it is damaged: `read` raises an error, or returns None because the
    content is not what it must be. The latter is logged, with the `remedy`.
    """
    try:
        content = read()
    except FileNotFoundError:
        return None
    except (OSError, *DAMAGE):
        content = None
    if content is None:
        log.warning("%s: damaged; %s", path, remedy)
    return content


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
