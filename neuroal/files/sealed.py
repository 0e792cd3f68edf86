"""JSON files with a digest of their content, so that damage is detected when they are read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroal.files.atomic import finite, write_json

SEAL = "sha256"
log = logging.getLogger(__name__)


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` and its digest to `path` as JSON, atomically."""
    stored: dict[str, Any] = finite(data)
    write_json(path, {**stored, SEAL: _digest(stored)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return the data that `write_sealed` wrote.

    None: there is no file, or its content does not match its digest. The latter is logged.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        if data.pop(SEAL) == _digest(data):
            return data
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a damaged file, as below
    log.warning("%s: damaged; its content is computed again", path)
    return None


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
