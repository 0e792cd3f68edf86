"""Run windows through the blocks of a model, each with temporary weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from neuroal.execution.runner import BlockRunner
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import PrunableLinear
from neuroal.models.weights import swapped_weights

Statistics = Mapping[str, InputStatistics]
WeightsOf = Callable[[Sequence[PrunableLinear], Statistics], Mapping[str, Tensor]]
"""Function of the linears of a block and their statistics; returns temporary weights by key."""


@dataclass(frozen=True, eq=False)
class BlockStep:
    """One block of a `PrunedWalk`, with statistics of its dense and its temporary weights."""

    index: int
    linears: Sequence[PrunableLinear]
    dense: Statistics
    sparse: Statistics


class PrunedWalk:
    """Iterates over the blocks of a model, running each with temporary weights.

    For each block: collect statistics of the dense block on the current hidden states, get the
    temporary weights, and run the block with them. The output is the input of the next block. The
    weights of the model are restored after each block.

    Args:
        dense_needs: statistics to collect in the dense block; if empty, it does not run.
        sparse_needs: statistics to collect in the block with temporary weights.
        first: cache for the dense statistics of block 0, whose inputs never change. The first
            walk fills an empty cache.
        last_output: whether to compute the output of the last block.
        check: whether to check the inputs for NaN and infinity, which synchronises a GPU.

    Attributes:
        hidden: output of the block that ran last: batches (windows, seqlen, hidden).
    """

    def __init__(
        self,
        runner: BlockRunner,
        weights_of: WeightsOf,
        *,
        dense_needs: frozenset[Need] = frozenset(),
        sparse_needs: frozenset[Need] = frozenset(),
        first: dict[str, InputStatistics] | None = None,
        last_output: bool = True,
        check: bool = True,
    ) -> None:
        self._runner, self._weights_of = runner, weights_of
        self._dense_needs, self._sparse_needs = dense_needs, sparse_needs
        self._first, self._last_output, self._check = first, last_output, check
        self.hidden: list[Tensor] = runner.embedded

    def __iter__(self) -> Iterator[BlockStep]:
        decoder = self._runner.decoder
        for index, linears in decoder.walk():
            dense = self._dense(index)
            outputs = self._last_output or index < len(decoder) - 1
            with swapped_weights(linears, self._weights_of(linears, dense)):
                sparse = self._run(index, outputs)
            yield BlockStep(index, linears, dense, sparse)

    def finish(self) -> list[Tensor]:
        """Iterate to the end and return the output of the last block."""
        for _ in self:
            pass
        return self.hidden

    def _dense(self, index: int) -> Statistics:
        if not self._dense_needs:
            return {}
        cached = self._first if index == 0 else None
        if cached:
            return cached
        _, statistics = self._runner.measure(
            index, self.hidden, self._dense_needs, outputs=False, check=self._check
        )
        if cached is not None:
            cached.update(statistics)
        return statistics

    def _run(self, index: int, outputs: bool) -> Statistics:
        if self._sparse_needs:
            self.hidden, statistics = self._runner.measure(
                index, self.hidden, self._sparse_needs, outputs=outputs, check=self._check
            )
            return statistics
        self.hidden = self._runner.run(index, self.hidden) if outputs else []
        return {}
