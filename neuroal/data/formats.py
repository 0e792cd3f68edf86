"""Formats of a user's own text, told apart by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neuroal.errors import UserError

ROWS = (".jsonl", ".ndjson", ".json")
"""Suffixes of rows in JSON, also with ``.gz`` behind them."""
REFUSED = (
    *(".parquet", ".arrow", ".feather", ".csv", ".tsv", ".xlsx", ".pdf", ".docx"),
    *(".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".7z"),
)
"""Suffixes of files that are neither plain text nor rows in JSON."""
FORMATS = 'give plain text in UTF-8, or JSON lines with a field "text" (.jsonl, .jsonl.gz)'
"""The remedy for a file in another format."""


def text_format(path: str | Path) -> Literal["jsonl", "text"]:
    """Return the format of a text file by its suffix, in upper or lower case.

    ``jsonl`` is a row with a field ``text`` in every line or, in a ``.json`` file, a list of such
    rows; ``text`` is plain text, with any suffix that is neither in `ROWS` nor refused.

    Raises:
        UserError: the suffix is that of another format (see `REFUSED`).
    """
    name = Path(path).name.lower()
    if name.removesuffix(".gz").endswith(ROWS):
        return "jsonl"
    if name.endswith(REFUSED):
        raise UserError(f"calibration.path={path}: files of this kind cannot be read; {FORMATS}")
    return "text"
