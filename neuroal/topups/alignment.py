"""The neuron-alignment criterion: how far pruning moves the activations, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, swapped_weights
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Allotment, Rules
from neuroal.statistics import InputStatistics, Need
from neuroal.topups.bound import UNBOUNDED, Bound


@dataclass(frozen=True, eq=False)
class Alignment:
    """Outcome of one candidate.

    Attributes:
        criterion: Σ over linears of ‖a^D/Σa^D − a^S/Σa^S‖₂ / cols; lower is better. If not
            `complete`, over the blocks that were looked at.
        differences: δ = a^D − a^S of each linear, by key: (cols,) float32.
        complete: whether all blocks were looked at.
        growth: the criterion after each block that was looked at.
    """

    criterion: float
    differences: Mapping[str, Tensor]
    complete: bool = True
    growth: Sequence[float] = ()


class AlignmentCriterion:
    """Measures candidates (numbers of zeros for each row) on fixed windows.

    Source: NeuroAL (arXiv 2411.07066), section 3. Block by block: run it dense and record the
    input norms a^D of its linears; prune it; run it sparse on the SAME inputs and record a^S.
    The sparse output is the next block's input.

    The inputs of block 0 are the same for all candidates, and so are its dense statistics, which
    are measured once. A dense run ends at the input of the block's last linear, and so does the
    last block's sparse run: their outputs are never used.
    """

    def __init__(self, runner: BlockRunner, pruner: Pruner, rules: Rules) -> None:
        self._runner = runner
        self._pruner = pruner
        self._reference = rules is Rules.REFERENCE
        self._first: dict[str, InputStatistics] | None = None

    def measure(self, allotments: Mapping[str, Allotment], bound: Bound = UNBOUNDED) -> Alignment:
        """Criterion and differences for one candidate; the model is left dense.

        The criterion only grows from block to block. Once `bound` excludes the candidate, the
        rest is not looked at.
        """
        criterion, growth = 0.0, list[float]()
        differences: dict[str, Tensor] = {}
        hidden = self._runner.embedded
        for index, linears in self._runner.subject.walk():
            dense = self._dense(index, hidden)
            pruned = {
                lin.key: self._pruner.pruned_weight(
                    lin.module.weight.data, dense[lin.key], allotments[lin.key]
                )
                for lin in linears
            }
            last = index == len(self._runner.subject) - 1
            with swapped_weights(linears, pruned):
                hidden, sparse = self._runner.measure(
                    index, hidden, frozenset({Need.NORM}), outputs=not last
                )
            norms = {
                lin.key: (self._norm(dense[lin.key]), self._norm(sparse[lin.key]))
                for lin in linears
            }
            for lin, distance in zip(linears, self._distances(norms), strict=True):
                criterion += distance / lin.cols
            differences |= {key: before - after for key, (before, after) in norms.items()}
            growth.append(criterion)
            if bound.excludes(index, criterion):
                return Alignment(criterion, differences, last, growth)
        return Alignment(criterion, differences, True, growth)

    def _dense(self, index: int, hidden: list[Tensor]) -> dict[str, InputStatistics]:
        if index == 0 and self._first is not None:
            return self._first
        needs = self._pruner.needs | {Need.NORM}
        _, statistics = self._runner.measure(index, hidden, needs, outputs=False)
        if index == 0:
            self._first = statistics
        return statistics

    def _norm(self, statistics: InputStatistics) -> Tensor:
        return self._pruner.input_norm(statistics, reference=self._reference)

    def _distances(self, norms: Mapping[str, tuple[Tensor, Tensor]]) -> list[float]:
        """Of each linear; all are read at once, because a GPU has to be waited for."""
        if not norms:
            return []
        distances = [
            torch.linalg.vector_norm(self._normalise(before) - self._normalise(after))
            for before, after in norms.values()
        ]
        found: list[float] = torch.stack(distances).tolist()
        return found

    def _normalise(self, norm: Tensor) -> Tensor:
        """To sum 1. Zeros stay zeros, but for the reference, where 0/0 gives its NaN."""
        total = norm.sum()
        if self._reference:
            return norm / total
        return norm / total.masked_fill(total == 0, 1)
