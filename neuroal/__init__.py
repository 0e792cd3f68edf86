"""NeuroAL: prune language models without re-training (arXiv 2411.07066).

`prune` and `evaluate` work on a model in memory; the command ``neuroal`` does whole runs. What it
exports is loaded on first use, so that the command line answers a typo without waiting for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroal.api import PruningResult, evaluate, prune
    from neuroal.errors import UserError
    from neuroal.plan import SparsityPlan
    from neuroal.records.store import load_record

_HOMES = {
    "PruningResult": "neuroal.api",
    "SparsityPlan": "neuroal.plan",
    "UserError": "neuroal.errors",
    "evaluate": "neuroal.api",
    "load_record": "neuroal.records.store",
    "prune": "neuroal.api",
}
__all__ = ["PruningResult", "SparsityPlan", "UserError", "evaluate", "load_record", "prune"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'neuroal' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
