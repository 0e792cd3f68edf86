"""Evolutionary search: exchange zeros at random and accept what lowers the divergence."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroal.errors import UserError, check_choice
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.divergence import OutputDivergence
from neuroal.gradients.objective import Band, ObjectiveInputs
from neuroal.gradients.row_sparsity import HIGHEST, LOWEST, shuffled
from neuroal.gradients.weight_order import WeightOrder
from neuroal.sparsity.plan import SparsityPlan
from neuroal.topups.base import Allocation, AllocationContext, TopUp

UNITS = ("linear", "block")
PASSES_PER_GRADIENT = 3
"""Cost of a forward and a backward pass together, in forward passes."""


@dataclass(frozen=True)
class Evolve(TopUp):
    """Allocate zeros by an evolutionary search with one parent, without gradients.

    A trial exchanges zeros between pairs of units (linears or blocks) at a constant total. It
    becomes the parent if it has the lower D = mean over tokens of KL(p_dense ‖ p_sparse) on the
    current windows. The windows change every `generation` trials, and the parent is evaluated again
    on the new ones.

    Source: the idea of EvoPress (Sieberling et al., 2024, arXiv 2410.14649). Here one dense pass
    determines the order of the weights, and there is no selection in several rounds.

    Args:
        passes: total number of forward passes. The default equals the cost of `EqualMarginals` with
            25 + 60 iterations, at three forward passes each.
        unit: ``linear`` or ``block``.
        largest_move: maximum change of a unit's sparsity in one exchange.
        exchanges: maximum number of exchanges in a trial; the number is the minimum of two draws.
        generation: number of trials on the same windows.
        windows: windows of a trial, drawn from the search windows in shuffled passes.
    """

    passes: int = 85 * PASSES_PER_GRADIENT
    unit: str = "linear"
    largest_move: float = 0.1
    exchanges: int = 3
    generation: int = 8
    windows: int = 8

    searches: ClassVar[bool] = True
    shares_windows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("topup.unit", self.unit, UNITS)
        if not 0 < self.largest_move < 1:
            raise UserError(f"topup.largest_move={self.largest_move}: must be above 0 and below 1")
        for key in ("passes", "exchanges", "generation", "windows"):
            if getattr(self, key) < 1:
                raise UserError(f"topup.{key}={getattr(self, key)}: must be at least 1")

    def allocate(self, context: AllocationContext) -> Allocation:
        settings, objective = context.settings, self._objective(context)
        units = {
            linear.key: linear.key if self.unit == "linear" else str(linear.block)
            for linear in context.decoder
        }
        sizes: Counter[str] = Counter()
        for linear in context.decoder:
            sizes[units[linear.key]] += linear.numel

        def plan_of(ratios: Mapping[str, float]) -> SparsityPlan:
            by_linear = {key: ratios[unit] for key, unit in units.items()}
            return SparsityPlan(by_linear, settings.sparsity)

        def divergence(ratios: Mapping[str, float], windows: Sequence[int]) -> float:
            budgets = context.budgets(plan_of(ratios))
            return objective.value({key: b.counts for key, b in budgets.items()}, windows)

        generator = random.Random(settings.seed)
        minibatches = shuffled(len(context.tokens), self.windows, settings.seed)
        parent = dict.fromkeys(sizes, settings.sparsity)
        values: list[float] = []
        accepted = trials = 0
        with context.progress.stage("evolve", self.passes, "pass") as step:
            while len(values) + trials < self.passes:
                windows = next(minibatches)
                best = divergence(parent, windows)
                values.append(best)
                step.advance(1, D=best)
                for _ in range(min(self.generation, self.passes - len(values) - trials)):
                    child = self._mutate(parent, sizes, generator)
                    value = divergence(child, windows)
                    trials += 1
                    if value < best:
                        parent, best, accepted = child, value, accepted + 1
                    step.advance(1, D=best)
        report = {"divergence": values, "trials": trials, "kept": accepted}
        return Allocation(plan_of(parent), report)

    def _objective(self, context: AllocationContext) -> OutputDivergence:
        runner = BlockRunner.capture(context.decoder, context.tokens, context.batch)
        order = WeightOrder(context.decoder, context.settings.pruner)
        dense = runner.share.joined(torch.cat(order.compute(runner, context.progress)))
        batch = min(context.batch, self.windows)
        inputs = ObjectiveInputs(runner, order, context.tokens, batch, Band())
        return OutputDivergence(inputs, dense)

    def search_passes(self, windows: int) -> float:
        return float(self.passes)

    def brief(self) -> Evolve:
        return dataclasses.replace(self, passes=min(self.passes, 8))

    def _mutate(
        self, parent: Mapping[str, float], sizes: Mapping[str, int], generator: random.Random
    ) -> dict[str, float]:
        """Return `parent` after exchanges between random units, within the bounds of a sparsity."""
        child, names = dict(parent), list(sizes)
        draws = (generator.randint(1, self.exchanges) for _ in range(2))
        for _ in range(min(draws)):
            if len(names) < 2:
                break
            target, source = generator.sample(names, 2)
            zeros = generator.uniform(0, self.largest_move) * min(sizes[target], sizes[source])
            higher = child[target] + zeros / sizes[target]
            lower = child[source] - zeros / sizes[source]
            if higher <= HIGHEST and lower >= LOWEST:
                child[target], child[source] = higher, lower
        return child
