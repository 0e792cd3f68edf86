"""The neuron-alignment criterion: how much pruning changes the activations, block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from neuroal.execution.pruned_walk import PrunedWalk
from neuroal.execution.runner import BlockRunner, raise_unless_finite
from neuroal.kernels.async_copy import HostCopy
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import Pruner
from neuroal.search.criteria.base import Budgets, CandidateResult, pruned_by
from neuroal.sparsity.budget import Rules

TINY = torch.finfo(torch.float32).tiny

Norms = Mapping[str, tuple[Tensor, Tensor]]
"""a^D and a^S of linears, by key: (cols,) float32."""


class AlignmentCriterion:
    """The criterion Σ over linears of ‖a^D/Σa^D − a^S/Σa^S‖₂ / cols, on fixed windows.

    For each block: run the dense block and record the input norms a^D of its linears, prune the
    block, run it on the same inputs and record a^S. The sparse output is the next block's input.

    The inputs of block 0 are the same for all candidates, so its dense statistics are computed
    once. Dense runs, and the sparse run of the last block, stop at the input of the last linear,
    because their outputs are not used.

    Source: NeuroAL (arXiv 2411.07066), section 3.

    Args:
        runner: holds the dense model and the windows.
        pruner: prunes the linears.
        rules: budget rules; ``reference`` normalises an all-zero norm to NaN.
    """

    def __init__(self, runner: BlockRunner, pruner: Pruner, rules: Rules) -> None:
        self._runner, self._pruner = runner, pruner
        self._reference = rules is Rules.REFERENCE
        self._first: dict[str, InputStatistics] = {}

    @property
    def decoder(self) -> DecoderModel:
        return self._runner.decoder

    def evaluate(self, budgets: Budgets) -> CandidateResult:
        """Return criterion and differences of one candidate; the model is left dense.

        Distances on a GPU are read one block late, so that the GPU never waits for the host.
        """
        criterion = 0.0
        differences: dict[str, Tensor] = {}
        last = len(self.decoder) - 1
        late = 1 if self.decoder.device.type == "cuda" else 0
        unread: deque[tuple[Sequence[PrunableLinear], HostCopy]] = deque()
        for index, linears, norms in self.blocks(budgets):
            differences |= {key: before - after for key, (before, after) in norms.items()}
            unread.append((linears, HostCopy(self.distances(norms))))
            while len(unread) > (late if index < last else 0):
                block, distances = unread.popleft()
                for term in terms(block, distances.get()):
                    criterion += term
        return CandidateResult(criterion, differences)

    def blocks(self, budgets: Budgets) -> Iterator[tuple[int, Sequence[PrunableLinear], Norms]]:
        """Yield index, linears and norms of each block, temporarily pruned by `budgets`.

        This does not synchronise a GPU.
        """
        walk = PrunedWalk(
            self._runner,
            pruned_by(self._pruner, budgets),
            dense_needs=self._pruner.needs | {Need.NORM},
            sparse_needs=frozenset({Need.NORM}),
            first=self._first,
            last_output=False,
            check=False,
        )
        for step in walk:
            norms = {
                lin.key: (self._norm(step.dense[lin.key]), self._norm(step.sparse[lin.key]))
                for lin in step.linears
            }
            yield step.index, step.linears, norms

    def distances(self, norms: Norms) -> Tensor:
        """Return ‖a^D/Σa^D − a^S/Σa^S‖₂, Σa^D and Σa^S of each linear: (3, linears)."""
        if not norms:
            return torch.zeros(3, 0)
        # Linears with the same input share one norm tensor, so its distance is computed once.
        columns: dict[tuple[int, int], Tensor] = {}
        for dense, sparse in norms.values():
            if (id(dense), id(sparse)) not in columns:
                dense_sum, sparse_sum = dense.sum(), sparse.sum()
                difference = self._share(dense, dense_sum) - self._share(sparse, sparse_sum)
                distance = torch.linalg.vector_norm(difference)
                columns[id(dense), id(sparse)] = torch.stack([distance, dense_sum, sparse_sum])
        return torch.stack([columns[id(d), id(s)] for d, s in norms.values()], dim=1)

    def _norm(self, statistics: InputStatistics) -> Tensor:
        return self._pruner.input_norm(statistics, reference=self._reference)

    def _share(self, norm: Tensor, total: Tensor) -> Tensor:
        """Return `norm` / `total`, with 0/0 = 0, or NaN under rules=reference."""
        return norm / (total if self._reference else total.clamp(min=TINY))


def terms(linears: Sequence[PrunableLinear], distances: Tensor) -> list[float]:
    """Return the term of each linear in the criterion, from `AlignmentCriterion.distances`.

    Raises:
        UserError: an input was NaN or infinite.
    """
    lengths, *sums = distances
    for total in sums:  # an infinite or NaN input makes the sum of the norms infinite or NaN
        raise_unless_finite((lin.key for lin in linears), total.isfinite())
    return [float(length) / lin.cols for lin, length in zip(linears, lengths, strict=True)]
