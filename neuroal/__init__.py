"""NeuroAL: prune language models without retraining (arXiv 2411.07066).

`prune` and `evaluate` work on a model in memory, `calibration_tokens` draws the text that `prune`
needs. `compose` and `run_config` do what the command ``neuroal`` does: a whole run, with a record.
Every name is loaded on first use, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuroal.config import former_names

if TYPE_CHECKING:
    from neuroal.api import PruningResult, calibration_tokens, evaluate, prune
    from neuroal.cli.compose import composed as compose
    from neuroal.errors import UserError
    from neuroal.models.load import load_compressed
    from neuroal.records.store import load_record
    from neuroal.run import run as run_config
    from neuroal.sparsity.plan import SparsityPlan

__version__ = "0.2.0"

_EXPORTS = {
    "PruningResult": ("neuroal.api", "PruningResult"),
    "SparsityPlan": ("neuroal.sparsity.plan", "SparsityPlan"),
    "UserError": ("neuroal.errors", "UserError"),
    "calibration_tokens": ("neuroal.api", "calibration_tokens"),
    "compose": ("neuroal.cli.compose", "composed"),
    "evaluate": ("neuroal.api", "evaluate"),
    "load_compressed": ("neuroal.models.load", "load_compressed"),
    "load_record": ("neuroal.records.store", "load_record"),
    "prune": ("neuroal.api", "prune"),
    "run_config": ("neuroal.run", "run"),
}
"""Exported name → module and name of its definition."""
__all__ = [
    "PruningResult",
    "SparsityPlan",
    "UserError",
    "__version__",
    "calibration_tokens",
    "compose",
    "evaluate",
    "load_compressed",
    "load_record",
    "prune",
    "run_config",
]

former_names.install()


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'neuroal' has no attribute '{name}'")
    module, attribute = _EXPORTS[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
