"""Run windows through a model block by block, with one copy of their hidden states."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.runner import BlockRunner
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import DecoderModel


class Replay:
    """Hidden states of windows at the input of a block, with methods to measure and run the block.

    The placement of the model determines where the hidden states are kept: on the host if it
    offloads blocks. A batch that runs out of memory is split, at any block.

    Args:
        decoder: the model; its weights may change between calls.
        tokens: token ids (windows, seqlen).
        batch: windows per forward pass, with ``divides=True``.
    """

    def __init__(self, decoder: DecoderModel, tokens: Tensor, batch: AdaptiveBatch) -> None:
        self._tokens, self._batch = tokens, batch
        self.runner = batch.run(lambda size: BlockRunner.capture(decoder, tokens, size))
        self._states = decoder.placement.states(self._take_embedded())
        self._size = batch.size
        self._next = 0
        """Index of the next batch that `advance` runs through its block."""

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the hidden states, batch by batch: (windows, seqlen, hidden)."""
        return iter(self._states)

    def _take_embedded(self) -> list[Tensor]:
        """Return the embeddings and drop the runner's reference, which would keep a copy."""
        embedded, self.runner.embedded = self.runner.embedded, []
        return embedded

    def measure(
        self, index: int, needs: frozenset[Need], *, check: bool = True
    ) -> dict[str, InputStatistics]:
        """Return the input statistics of block `index`, whose input the hidden states must be.

        Without `check`, the caller checks that inputs are finite; see `BlockRunner.measure`.
        """
        statistics: dict[str, InputStatistics] = {}

        def collect() -> None:
            _, measured = self.runner.measure(
                index, self._states, needs, outputs=False, check=check
            )
            statistics.update(measured)

        while not self._batch.fits(collect):
            self._split()
        return statistics

    def advance(self, index: int) -> None:
        """Replace the hidden states by the output of block `index`."""
        self._next = 0
        while not self._batch.fits(lambda: self._advance_rest(index)):
            self._split()

    @torch.no_grad()
    def _advance_rest(self, index: int) -> None:
        """Run the batches from `_next` on through block `index`."""
        for number, part in enumerate(self._states.starting(self._next), start=self._next):
            self._states.put(number, self.runner.call(index, number, part))
            self._next = number + 1

    def _split(self) -> None:
        """Split all batches into batches of the current size."""
        self.runner = self._batch.run(lambda size: self.runner.on(self._tokens, size))
        self._take_embedded()
        self._states.split(self._batch.size)
        factor, self._size = self._size // self._batch.size, self._batch.size
        self._next *= factor
