"""Write records and masks atomically, and read them."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroal.errors import UserError, shortened
from neuroal.files.atomic import JsonTexts, open_own, replacing
from neuroal.files.sealed import DAMAGE, undamaged, unsealed, write_sealed
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


def save_record(record: Record, folder: Path, texts: JsonTexts | None = None) -> Path:
    """Write ``FOLDER/IDENTITY.json`` and return its path; `texts` as in `write_sealed`."""
    path = folder / f"{record.identity}.json"
    write_sealed(path, record.to_dict(), texts)
    return path


class DamagedRecord(UserError):
    """The content of a record is damaged."""


def load_record(path: str | Path) -> Record:
    """Read one record.

    Raises:
        DamagedRecord: it is no record, or does not match its digest.
        UserError: it cannot be read.
    """
    try:
        return Record.from_dict(json.loads(unsealed(Path(path).read_text(encoding="utf-8"))))
    except OSError as error:
        raise UserError(f"record {path}: cannot be read ({error.strerror})") from error
    except (*DAMAGE, UserError) as error:
        reason = shortened(error)
        raise DamagedRecord(f"record {path}: damaged ({reason}); move it away") from error


def save_masks(masks: PackedMasks, path: Path) -> None:
    """Write packed masks as an npz file, atomically."""
    arrays: dict[str, Any] = {key: masks.bits(key).numpy() for key in masks}
    with replacing(path) as file:
        np.savez(file, **arrays)


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

    def read() -> PackedMasks | None:
        masks = PackedMasks()
        with open_own(path) as file, np.load(file, allow_pickle=False) as arrays:
            for key, shape in shapes.items():
                masks.add_bits(key, torch.from_numpy(arrays[key]), shape)
        return masks if masks.digests() == digests else None

    return undamaged(path, read, "the masks are computed again")


def are_stored(path: Path, digests: Mapping[str, str]) -> bool:
    """Return whether `path` holds the masks with these `PackedMasks.digests`; log damage."""

    def read() -> bool | None:
        with open_own(path) as file, np.load(file, allow_pickle=False) as arrays:
            stored = {key: hashlib.sha256(arrays[key].tobytes()).hexdigest() for key in arrays}
        return True if stored == digests else None

    return undamaged(path, read, "the masks are written again") is not None
