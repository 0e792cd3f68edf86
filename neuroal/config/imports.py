"""Import the modules that hold a user's own methods."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import PathFinder
from types import ModuleType


def import_module_of(module: str) -> ModuleType:
    """Import the module of a ``_target_``.

    If it is not on Python's path, the current folder is added, as the last entry, so that a file
    there cannot replace another module.

    Raises:
        ImportError: it is in no folder of the path, or its import fails.
        ValueError: `module` is empty.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here, top = os.getcwd(), module.partition(".")[0]
        if error.name != top or here in sys.path or not _is_in(here, top):
            raise
    sys.path.append(here)
    importlib.invalidate_caches()
    return importlib.import_module(module)


def _is_in(folder: str, module: str) -> bool:
    """Return whether `folder` holds the module or package `module`."""
    return PathFinder.find_spec(module, [folder]) is not None
