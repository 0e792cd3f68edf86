"""Uniform: the same sparsity for every linear."""

from __future__ import annotations

from dataclasses import dataclass

from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.base import Allocation, AllocationContext, TopUp


@dataclass(frozen=True)
class Uniform(TopUp):
    """Set s_l = s for every linear l, the baseline of all comparisons."""

    def allocate(self, context: AllocationContext) -> Allocation:
        return Allocation(uniform_plan(context.decoder, context.settings.sparsity))
