"""Interface of criteria, which evaluate candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from neuroal.execution.pruned_walk import Statistics, WeightsOf
from neuroal.models.adapter import PrunableLinear
from neuroal.pruners.base import Pruner
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
        return {
            linear.key: pruner.pruned_weight(
                linear.weight, statistics.get(linear.key), budgets[linear.key]
            )
            for linear in linears
        }

    return weights_of
