"""Take many windows through a model block by block, with one copy of their hidden states."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.fitting import Batch
from neuroal.models.adapter import DecoderModel
from neuroal.statistics import InputStatistics, Need


class Replay:
    """Windows that stand before a block, and step through it when told to.

    Their hidden states are where the model's placement wants them, the host for one that
    offloads. A batch that does not fit into memory is cut in two, at any block.

    Args:
        subject: the model; may change between calls.
        tokens: windows (windows, seqlen).
        batch: windows in one forward pass, to begin with; must be one that `divides`.
    """

    def __init__(self, subject: DecoderModel, tokens: Tensor, batch: Batch) -> None:
        self._tokens, self._batch = tokens, batch
        self.runner = batch.fit(lambda size: BlockRunner.capture(subject, tokens, size))
        self._states = subject.placement.states(self._take_embedded())
        self._size = batch.size

    def __iter__(self) -> Iterator[Tensor]:
        """The hidden states, batch by batch."""
        return iter(self._states)

    def _take_embedded(self) -> list[Tensor]:
        embedded, self.runner.embedded = self.runner.embedded, []
        return embedded

    def measure(self, index: int, needs: frozenset[Need]) -> dict[str, InputStatistics]:
        """Statistics of the linears of block `index`, before which the windows stand."""
        while True:
            done = self._batch.attempt(
                lambda: self.runner.measure(index, self._states, needs, outputs=False)[1]
            )
            if done is not None:
                return done[0]
            self._cut(0)

    def advance(self, index: int) -> None:
        """Take the windows through block `index`."""
        first = 0
        while first < len(self._states):
            done = [first]
            if self._batch.attempt(lambda done=done: self._step(index, done)) is not None:  # type: ignore[misc]
                return
            first = self._cut(done[0])

    @torch.no_grad()
    def _step(self, index: int, done: list[int]) -> None:
        """Advance the batches from `done[0]` on, which counts them."""
        for batch, part in enumerate(self._states.starting(done[0]), start=done[0]):
            self._states.put(batch, self.runner.call(index, batch, part))
            done[0] += 1

    def _cut(self, batch: int) -> int:
        """Cut all batches to the new size; returns where the windows of `batch` begin now."""
        self.runner = self._batch.fit(lambda size: self.runner.on(self._tokens, size))
        self._take_embedded()
        self._states.split(self._batch.size)
        pieces, self._size = self._size // self._batch.size, self._batch.size
        return batch * pieces
