"""Number of search windows of a run whose ``calibration.search_windows`` is null."""

from __future__ import annotations

from collections.abc import Mapping

from neuroal.config.constants import PACKAGE, constant
from neuroal.config.former_names import present_target
from neuroal.config.imports import import_module_of
from neuroal.config.schema import RunConfig

FEW = 8
"""Windows of a method that names no other number, as in the paper."""


def search_windows(config: RunConfig) -> int:
    """Return ``calibration.search_windows``, or the top-up's ``default_windows`` if it is null.

    Imports the class of the top-up only if it is a method outside this package.
    """
    if config.calibration.search_windows is not None:
        return config.calibration.search_windows
    node = config.topup if isinstance(config.topup, Mapping) else {}
    module, _, name = present_target(str(node.get("_target_") or "")).rpartition(".")
    if module.partition(".")[0] == PACKAGE:
        return int(str(constant(module, "default_windows", name) or FEW))
    try:
        method = getattr(import_module_of(module), name, None) if module else None
    except (ImportError, ValueError):  # building the method reports the error
        method = None
    return int(getattr(method, "default_windows", FEW))
