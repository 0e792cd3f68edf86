"""Write records and masks atomically, and read them."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from neuroal.errors import UserError
from neuroal.files.atomic import write_json
from neuroal.pruners.packed import PackedMasks
from neuroal.records.schema import Record

log = logging.getLogger(__name__)


def prepare_out(folder: str | Path) -> Path:
    """Create the folder of records, check that it is writable, and return its path."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror})") from error
    return path


def save_record(record: Record, folder: Path) -> Path:
    """Write ``FOLDER/IDENTITY.json`` and return its path."""
    path = folder / f"{record.identity}.json"
    write_json(path, record.to_dict())
    return path


def load_record(path: str | Path) -> Record:
    """Read one record."""
    try:
        return Record.from_dict(json.loads(Path(path).read_text()))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"record {path}: cannot be read ({error})") from error


def save_masks(masks: PackedMasks, path: Path) -> None:
    """Write packed masks as an npz file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        arrays: dict[str, Any] = {key: masks.bits(key).numpy() for key in masks}
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def load_masks(
    path: Path, shapes: Mapping[str, tuple[int, int]], digests: Mapping[str, str]
) -> PackedMasks | None:
    """Read masks that `save_masks` wrote.

    Args:
        path: npz file.
        shapes: (rows, cols) of each linear, by key.
        digests: `PackedMasks.digests` of the masks.

    Returns:
        The masks. None: there is no file, or its content does not match `digests`. The latter is
        logged.
    """
    masks = PackedMasks()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key, shape in shapes.items():
                masks.add_bits(key, torch.from_numpy(arrays[key]), shape)
        if masks.digests() == digests:
            return masks
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, BadZipFile):
        pass  # a damaged file, as below
    log.warning("%s: damaged; the masks are computed again", path)
    return None
