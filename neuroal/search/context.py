"""Inputs of an allocation method."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neuroal.config.former_names import warn_former
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.settings import PruningSettings
from neuroal.sparsity.budget import LinearBudget
from neuroal.sparsity.plan import SparsityPlan
from neuroal.tracking.progress import Progress

_FORMER = {
    "subject": "decoder",
    "pruner": "settings.pruner",
    "sparsity": "settings.sparsity",
    "rules": "settings.rules",
    "group": "settings.group",
    "seed": "settings.seed",
    "devices": "settings.devices",
}
"""Attributes of version 0.1 and their new paths."""


@dataclass(frozen=True, eq=False)
class AllocationContext:
    """The model, the settings and the windows that a sparsity allocation may use.

    Attributes:
        decoder: the dense model, which an allocation must leave dense.
        settings: pruner, sparsity, rules, N:M group, seed and devices.
        tokens: search windows (windows, seqlen); unused by methods without a search.
        batch: windows in one forward pass.
        progress: receives progress updates.
    """

    decoder: DecoderModel
    settings: PruningSettings
    tokens: Tensor
    batch: int
    progress: Progress

    def budgets(self, plan: SparsityPlan) -> dict[str, LinearBudget]:
        """Return the zeros of every row under `plan`, by linear."""
        return self.settings.budgets(plan, self.decoder)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in _FORMER:
                raise AttributeError(f"AllocationContext has no attribute '{name}'")
            warn_former(f"AllocationContext.{name}", f"AllocationContext.{_FORMER[name]}")
            return attrgetter(_FORMER[name])(self)
