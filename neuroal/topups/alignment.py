"""The neuron-alignment criterion: how far pruning moves the activations, block by block."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, raise_unless_finite, swapped_weights
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Allotment, Rules
from neuroal.readback import Readback
from neuroal.statistics import InputStatistics, Need

TINY = torch.finfo(torch.float32).tiny

Norms = Mapping[str, tuple[Tensor, Tensor]]
"""a^D and a^S of linears, by key: (cols,) float32."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """Outcome of one candidate.

    Attributes:
        criterion: Σ over linears of ‖a^D/Σa^D − a^S/Σa^S‖₂ / cols; lower is better. If not
            `complete`, over the blocks that were looked at.
        differences: δ = a^D − a^S of each linear, by key: (cols,) float32.
        complete: whether all blocks were looked at.
    """

    criterion: float
    differences: Mapping[str, Tensor]
    complete: bool = True


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

    @property
    def subject(self) -> DecoderModel:
        """The model."""
        return self._runner.subject

    def measure(self, allotments: Mapping[str, Allotment], bound: float = math.inf) -> Alignment:
        """Criterion and differences for one candidate; the model is left dense.

        The criterion only grows from block to block. Once it exceeds `bound`, the rest is not
        looked at. A GPU's figures are read one block late, so that it never waits for the host.
        """
        criterion = 0.0
        differences: dict[str, Tensor] = {}
        last = len(self.subject) - 1
        late = 1 if self.subject.device.type == "cuda" else 0
        unread: deque[tuple[int, Sequence[PrunableLinear], Readback]] = deque()
        for index, linears, norms in self.blocks(allotments):
            differences |= {key: before - after for key, (before, after) in norms.items()}
            unread.append((index, linears, Readback(self.figures(norms))))
            while len(unread) > (late if index < last else 0):
                block, measured, figures = unread.popleft()
                for term in terms(measured, figures.get()):
                    criterion += term
                if criterion > bound:
                    return Alignment(criterion, differences, block == last)
        return Alignment(criterion, differences)

    def blocks(
        self, allotments: Mapping[str, Allotment]
    ) -> Iterator[tuple[int, Sequence[PrunableLinear], Norms]]:
        """Take the windows through the blocks, each pruned by `allotments` while it runs.

        Yields:
            The block, its linears, and a^D and a^S of each, by key. Nothing waits for a GPU.
        """
        hidden = self._runner.embedded
        last = len(self.subject) - 1
        for index, linears in self.subject.walk():
            dense = self._dense(index, hidden)
            pruned = {
                lin.key: self._pruner.pruned_weight(
                    lin.module.weight.data, dense[lin.key], allotments[lin.key]
                )
                for lin in linears
            }
            with swapped_weights(linears, pruned):
                hidden, sparse = self._runner.measure(
                    index, hidden, frozenset({Need.NORM}), outputs=index < last, check=False
                )
            yield (
                index,
                linears,
                {
                    lin.key: (self._norm(dense[lin.key]), self._norm(sparse[lin.key]))
                    for lin in linears
                },
            )

    def _dense(self, index: int, hidden: list[Tensor]) -> dict[str, InputStatistics]:
        if index == 0 and self._first is not None:
            return self._first
        needs = self._pruner.needs | {Need.NORM}
        _, statistics = self._runner.measure(index, hidden, needs, outputs=False, check=False)
        if index == 0:
            self._first = statistics
        return statistics

    def figures(self, norms: Norms) -> Tensor:
        """Distance of each linear, and the sums of its dense and of its sparse norms: (3, n)."""
        if not norms:
            return torch.zeros(3, 0)
        found: dict[tuple[int, int], Tensor] = {}  # linears with the same input share its norms
        for before, after in norms.values():
            if (id(before), id(after)) not in found:
                totals = before.sum(), after.sum()
                shares = (self._share(n, t) for n, t in zip((before, after), totals, strict=True))
                distance = torch.linalg.vector_norm(next(shares) - next(shares))
                found[id(before), id(after)] = torch.stack([distance, *totals])
        return torch.stack([found[id(b), id(a)] for b, a in norms.values()], dim=1)

    def _norm(self, statistics: InputStatistics) -> Tensor:
        return self._pruner.input_norm(statistics, reference=self._reference)

    def _share(self, norm: Tensor, total: Tensor) -> Tensor:
        """`norm` as parts of its sum. Zeros stay zeros, but for the reference: there 0/0 is NaN."""
        return norm / (total if self._reference else total.clamp(min=TINY))


def terms(linears: Sequence[PrunableLinear], figures: Tensor) -> list[float]:
    """What each linear adds to the criterion, by its column of `AlignmentCriterion.figures`.

    Raises:
        UserError: an input was NaN or infinite (names the linear).
    """
    distances, *totals = figures
    for total in totals:  # a norm is infinite or NaN where an input is, and so is the sum of norms
        raise_unless_finite((lin.key for lin in linears), total.isfinite())
    return [float(distance) / lin.cols for lin, distance in zip(linears, distances, strict=True)]
