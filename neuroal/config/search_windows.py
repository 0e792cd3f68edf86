"""Number of search windows of a run whose ``calibration.search_windows`` is null."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from neuroal.config.former_names import present_target
from neuroal.config.schema import RunConfig

FEW = 8
"""Windows of a method that names no other number, as in the paper."""
OWN = {
    "neuroal.topups.fisher.Fisher": 64,
    "neuroal.topups.marginal.EqualMarginals": 64,
}
"""Import path of a class → its `TopUp.default_windows`; importing it would load torch."""


def search_windows(config: RunConfig) -> int:
    """Return ``calibration.search_windows``, or the top-up's own number if it is null.

    Imports the class of the top-up only if it is a method outside this package.
    """
    if config.calibration.search_windows is not None:
        return config.calibration.search_windows
    node = config.topup if isinstance(config.topup, Mapping) else {}
    target = present_target(str(node.get("_target_") or ""))
    if target.startswith("neuroal.") or "." not in target:
        return OWN.get(target, FEW)
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):  # building the method reports the error
        cls = None
    return int(getattr(cls, "default_windows", FEW))
