"""Random exchanges of zeros, kept if the output comes nearer to the dense model's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError, check_choice
from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.divergence import Band, OutputDivergence
from neuroal.topups.ranks import Ranks
from neuroal.topups.rows import HIGHEST, LOWEST, shuffled

UNITS = ("linear", "block")
PASSES_OF_A_GRADIENT = 3
"""Forward passes that a forward and a backward pass together cost."""


@dataclass(frozen=True)
class Evolve(TopUp):
    """Evolutionary search with one parent: the rival of equal marginals that needs no gradient.

    A trial moves zeros from one or more units (linears or blocks) to as many others, an equal
    number each way, and is kept if D = mean over tokens of KL(p_dense ‖ p_sparse) falls on the
    windows at hand. The windows change every `generation` trials, when the parent is measured anew.

    Source: the idea of EvoPress (Sieberling et al., 2024, arXiv 2410.14649), with the order of
    the weights from one dense pass and without its selection in several rounds.

    Args:
        passes: forward passes in all; the default is what `EqualMarginals` takes for 25 + 60
            iterations, counted as three forward passes each.
        unit: ``linear`` or ``block``.
        largest_move: most that a unit's sparsity changes in one exchange.
        exchanges: most exchanges in a trial; their number is the lesser of two draws.
        generation: trials on the same windows.
        windows: of a trial, drawn from the search windows in shuffled passes.

    Sample YAML::

        _target_: neuroal.topups.evolve.Evolve
        passes: 255
        unit: linear
    """

    passes: int = 85 * PASSES_OF_A_GRADIENT
    unit: str = "linear"
    largest_move: float = 0.1
    exchanges: int = 3
    generation: int = 8
    windows: int = 8

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("topup.unit", self.unit, UNITS)
        if not 0 < self.largest_move < 1:
            raise UserError(f"topup.largest_move={self.largest_move}: must be above 0 and below 1")
        for key in ("passes", "exchanges", "generation", "windows"):
            if getattr(self, key) < 1:
                raise UserError(f"topup.{key}={getattr(self, key)}: must be at least 1")

    def allocate(self, context: AllocationContext) -> Allocation:
        subject, tokens = context.subject, context.tokens
        runner = BlockRunner.capture(subject, tokens, context.batch)
        ranks = Ranks(subject, context.pruner)
        dense = torch.cat(ranks.measure(runner, context.progress))
        batch = min(context.batch, self.windows)
        objective = OutputDivergence(runner, ranks, tokens, dense, batch, Band())
        sizes = _sizes(subject, self.unit)
        generator = random.Random(context.seed)
        minibatches = shuffled(len(tokens), self.windows, context.seed)
        parent = dict.fromkeys(sizes, context.sparsity)
        values: list[float] = []
        kept = trials = 0
        with context.progress.stage("evolve", self.passes, "pass") as step:
            while len(values) + trials < self.passes:
                windows = next(minibatches)
                best = objective.value(_counts(context, parent, self.unit), windows)
                values.append(best)
                step.advance(1, D=best)
                for _ in range(min(self.generation, self.passes - len(values) - trials)):
                    child = self._mutate(parent, sizes, generator)
                    found = objective.value(_counts(context, child, self.unit), windows)
                    trials += 1
                    if found < best:
                        parent, best, kept = child, found, kept + 1
                    step.advance(1, D=best)
        plan = _plan(subject, parent, self.unit, context.sparsity)
        return Allocation(plan, {"divergence": values, "trials": trials, "kept": kept})

    def _mutate(
        self, parent: Mapping[str, float], sizes: Mapping[str, int], generator: random.Random
    ) -> dict[str, float]:
        """Exchange zeros between random pairs of units; what would leave the bounds is not done."""
        child, names = dict(parent), list(sizes)
        draws = (generator.randint(1, self.exchanges) for _ in range(2))
        for _ in range(min(draws)):
            if len(names) < 2:
                break
            gains, loses = generator.sample(names, 2)
            zeros = generator.uniform(0, self.largest_move) * min(sizes[gains], sizes[loses])
            up, down = child[gains] + zeros / sizes[gains], child[loses] - zeros / sizes[loses]
            if up <= HIGHEST and down >= LOWEST:
                child[gains], child[loses] = up, down
        return child


def _name(key: str, block: int, unit: str) -> str:
    return key if unit == "linear" else str(block)


def _sizes(subject: DecoderModel, unit: str) -> dict[str, int]:
    """Prunable weights of every unit."""
    sizes: dict[str, int] = {}
    for linear in subject:
        name = _name(linear.key, linear.block, unit)
        sizes[name] = sizes.get(name, 0) + linear.numel
    return sizes


def _plan(
    subject: DecoderModel, ratios: Mapping[str, float], unit: str, sparsity: float
) -> SparsityPlan:
    by_linear = {lin.key: ratios[_name(lin.key, lin.block, unit)] for lin in subject}
    return SparsityPlan(by_linear, sparsity)


def _counts(
    context: AllocationContext, ratios: Mapping[str, float], unit: str
) -> dict[str, torch.Tensor]:
    allotments = context.allot(_plan(context.subject, ratios, unit, context.sparsity))
    return {key: allotment.counts for key, allotment in allotments.items()}
