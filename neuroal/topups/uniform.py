"""Uniform: the same sparsity everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.topups.base import Allocation, AllocationContext, TopUp


@dataclass(frozen=True)
class Uniform(TopUp):
    """Every linear gets sparsity s: the baseline of every comparison."""

    def allocate(self, context: AllocationContext) -> Allocation:
        return Allocation(uniform_plan(context.subject, context.sparsity))


def uniform_plan(subject: DecoderModel, sparsity: float) -> SparsityPlan:
    """Plan with ratio `sparsity` for every linear of `subject`."""
    return SparsityPlan({linear.key: sparsity for linear in subject}, sparsity)
