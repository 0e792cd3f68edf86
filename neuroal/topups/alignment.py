"""The neuron-alignment criterion: how far pruning moves the activations, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, swapped_weights
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Allotment, Rules
from neuroal.statistics import InputStatistics, Need


@dataclass(frozen=True, eq=False)
class Alignment:
    """Outcome of one candidate.

    Attributes:
        criterion: Σ over linears of ‖a^D/Σa^D − a^S/Σa^S‖₂ / cols; lower is better.
        differences: δ = a^D − a^S of each linear, by key: (cols,) float32.
    """

    criterion: float
    differences: Mapping[str, Tensor]


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

    def measure(self, allotments: Mapping[str, Allotment]) -> Alignment:
        """Criterion and differences for one candidate; the model is left dense."""
        criterion = 0.0
        differences: dict[str, Tensor] = {}
        hidden = self._runner.embedded
        for index, linears in self._runner.subject.walk():
            dense = self._dense(index, hidden)
            pruned = {
                lin.key: self._pruner.prune(
                    lin.module.weight.data, dense[lin.key], allotments[lin.key]
                ).weight
                for lin in linears
            }
            last = index == len(self._runner.subject) - 1
            with swapped_weights(linears, pruned):
                hidden, sparse = self._runner.measure(
                    index, hidden, frozenset({Need.NORM}), outputs=not last
                )
            for lin in linears:
                before = self._norm(dense[lin.key])
                after = self._norm(sparse[lin.key])
                criterion += self._distance(before, after) / lin.cols
                differences[lin.key] = before - after
        return Alignment(criterion, differences)

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

    def _distance(self, before: Tensor, after: Tensor) -> float:
        return float(torch.linalg.vector_norm(self._normalise(before) - self._normalise(after)))

    def _normalise(self, norm: Tensor) -> Tensor:
        """To sum 1. Zeros stay zeros, but for the reference, where 0/0 gives its NaN."""
        total = norm.sum()
        return norm if not self._reference and float(total) == 0 else norm / total
