"""Objectives of gradient-based allocation: interface, inputs and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from neuroal.execution.runner import BlockRunner
from neuroal.gradients.weight_order import Counts, WeightOrder


@dataclass(frozen=True)
class Band:
    """The ranks [k − w, k + w) of a row with k zeros, with w = max(least, share·cols)."""

    share: float = 0.1
    least: int = 4

    def width(self, cols: int) -> int:
        return max(self.least, int(self.share * cols))


@dataclass(frozen=True, eq=False)
class MarginalCosts:
    """The value of an objective and its marginal costs: the increase per additional zero.

    The cost of a row is the increase if a weight is zeroed, averaged over the band: (rows,) float32
    by linear.
    """

    value: float
    costs: Mapping[str, Tensor]


class Objective(Protocol):
    """A function of the allocation, evaluated on minibatches of windows."""

    def margins(self, counts: Counts, windows: Sequence[int]) -> MarginalCosts:
        """Return the objective and the marginal cost of every row under the zeros `counts`."""


@dataclass(frozen=True, eq=False)
class ObjectiveInputs:
    """The model, the windows and the order of the weights that an objective is evaluated with.

    Attributes:
        runner: holds the dense model; its windows are replaced by those of a minibatch.
        tokens: all windows (windows, seqlen).
        batch: windows in one forward pass.
        band: weights whose costs are averaged.
    """

    runner: BlockRunner
    order: WeightOrder
    tokens: Tensor
    batch: int
    band: Band

    def runner_on(self, windows: Sequence[int]) -> BlockRunner:
        return self.runner.on(self.tokens[list(windows)], self.batch)
