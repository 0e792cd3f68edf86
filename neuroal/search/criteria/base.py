"""Interface of criteria, which evaluate candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from neuroal.execution.pruned_walk import Statistics, WeightsOf
from neuroal.models.adapter import PrunableLinear
from neuroal.pruners.base import FactorPruner, Pruner
from neuroal.pruners.batches import batches, pruned_together
from neuroal.pruners.faults import check_tensor, faults_of, naming
from neuroal.sparsity.budget import LinearBudget

Budgets = Mapping[str, LinearBudget]
"""Zeros of every row, by linear: the description of a candidate that a criterion receives."""


@dataclass(frozen=True, eq=False)
class CandidateResult:
    """The value of a criterion for one candidate; lower is better.

    `differences` are δ = a^D − a^S at the input of each linear, (cols,) float32, by key; None for
    all criteria other than alignment.
    """

    criterion: float
    differences: Mapping[str, Tensor] | None = None


class Criterion(Protocol):
    """A function of a candidate's budgets; evaluation leaves the model dense."""

    def evaluate(self, budgets: Budgets) -> CandidateResult:
        """Return the criterion of one candidate."""


def pruned_by(pruner: Pruner, budgets: Budgets) -> WeightsOf:
    """Return a function that computes the pruned weights of a block's linears."""

    def weights_of(linears: Sequence[PrunableLinear], statistics: Statistics) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for batch in batches(linears, pruner, budgets):
            if len(batch) > 1 and isinstance(pruner, FactorPruner):
                pruned = pruned_together(pruner, batch, statistics, budgets)
                weights.update(zip([linear.key for linear in batch], pruned, strict=True))
                continue
            (linear,) = batch
            inputs, budget = statistics.get(linear.key), budgets[linear.key]
            with naming(linear.key), faults_of(pruner, linear.weight):
                weight = pruner.pruned_weight(linear.weight, inputs, budget)
                check_tensor(pruner.setting, "pruned weight", weight, linear.weight)
            weights[linear.key] = weight
        return weights

    return weights_of
