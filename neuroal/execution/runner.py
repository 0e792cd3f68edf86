"""Run decoder blocks one at a time, with the arguments that the model passes to them.

The model runs once with each block replaced by a recorder that returns its input unchanged. This
records the arguments of all blocks (masks, position embeddings, sliding windows, …) for any
architecture, at the cost of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.execution.compile import BlockCall, CompiledBlocks
from neuroal.execution.compiled_gradients import CompiledGradients, Reduction
from neuroal.execution.joined import joined_statistics
from neuroal.execution.probe import Probe, probe_of
from neuroal.execution.routed import completed
from neuroal.kernels.input_statistics import InputStatistics, Need, StatisticsCollector
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.models.forwards import replaced_forward
from neuroal.parallel.peers import ALONE, Share


class _Stop(Exception):
    """Ends a forward pass from inside a hook."""


@dataclass(eq=False)
class BlockRunner:
    """Runs single blocks of a model on fixed windows. Create it with `capture` or `on`.

    Hidden states are lists with one tensor (windows, seqlen, hidden) per batch. If several devices
    do a stage together, each runs its share of the windows, and only their statistics are joined.

    Attributes:
        probe: what the blocks return, and in which order they call their linears.
        embedded: hidden states that enter block 0.
        share: the windows that this device runs.
    """

    decoder: DecoderModel
    probe: Probe
    embedded: list[Tensor] = field(default_factory=list)
    share: Share = field(default_factory=lambda: Share(ALONE, 0))
    _calls: list[list[BlockCall]] = field(default_factory=list)
    _windows: int = 0

    @classmethod
    @torch.no_grad()
    def capture(cls, decoder: DecoderModel, tokens: Tensor, batch: int) -> BlockRunner:
        """Embed `tokens` (windows, seqlen) and record the arguments of every block.

        Each forward pass takes `batch` windows.
        """
        return cls(decoder, probe_of(decoder, tokens)).on(tokens, batch)

    @torch.no_grad()
    def on(self, tokens: Tensor, batch: int) -> BlockRunner:
        """Return a runner of the same model on other `tokens` (windows, seqlen)."""
        runner = BlockRunner(self.decoder, self.probe)
        runner._record(tokens, batch)
        return runner

    def _record(self, tokens: Tensor, batch: int) -> None:
        self.share = self.decoder.peers.share(len(tokens))
        tokens = self.share.of(tokens)
        self._windows = min(batch, len(tokens))
        self._calls = [[] for _ in self.decoder.blocks]
        with ExitStack() as stack:
            for index, block in enumerate(self.decoder.blocks):
                stack.enter_context(replaced_forward(block, self._recorder(index)))
            for part in tokens.split(batch):
                try:
                    self.decoder.model(part.to(self.decoder.device), use_cache=False)
                except _Stop:
                    continue

    def _recorder(self, index: int) -> Any:
        output_of = self.probe.outputs[index]

        def record(*args: Any, **kwargs: Any) -> Any:
            keyword = None if args else "hidden_states"
            hidden = kwargs.pop(keyword) if keyword else args[0]
            if index == 0:
                self.embedded.append(hidden)
            self._calls[index].append(BlockCall(args[1:], kwargs, keyword))
            if index == len(self.decoder) - 1:
                raise _Stop
            return output_of(hidden)

        return record

    def call(self, index: int, number: int, hidden: Tensor) -> Tensor:
        """Run block `index` on batch `number`, `hidden`: (windows, seqlen, hidden).

        Supports autograd.
        """
        compiled_pass = self._compiled(index, number, hidden, outputs=True)
        if compiled_pass is not None and compiled_pass[0] is not None:
            return compiled_pass[0]
        with self.decoder.separate_experts(index):
            return self._calls[index][number](self.decoder.blocks[index], hidden)

    def _compiled(
        self, index: int, number: int, hidden: Tensor, *, outputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]] | None:
        """Run a block with `CompiledBlocks.run`; return None if it is not compiled.

        Only batches of the first batch's size are compiled, as another size needs another graph.
        """
        compiled = self._compiled_blocks
        order, linears = self.probe.orders[index], self.decoder.linears[index]
        if order is None or torch.is_grad_enabled() or not self._compiles(index, hidden, compiled):
            return None
        return compiled.run(
            self.decoder.blocks[index],
            [linear.module for linear in linears],
            order,
            self._calls[index][number],
            hidden,
            outputs=outputs,
        )

    @property
    def _compiled_blocks(self) -> CompiledBlocks:
        return self.decoder.once("compiled", CompiledBlocks)

    @property
    def _compiled_gradients(self) -> CompiledGradients:
        blocks = self._compiled_blocks
        return self.decoder.once("compiled gradients", lambda: CompiledGradients(blocks))

    def _compiles(
        self, index: int, hidden: Tensor, compiled: CompiledBlocks | CompiledGradients
    ) -> bool:
        weights = sum(linear.numel for linear in self.decoder.linears[index])
        return len(hidden) == self._windows and compiled.takes(weights, hidden)

    def compiles_gradients(self, index: int) -> bool:
        """Return whether `gradients` computes those of block `index`, for full batches."""
        takes = self._compiles(index, self.embedded[0], self._compiled_gradients)
        return self.probe.orders[index] is not None and takes

    def gradients(
        self, index: int, number: int, hidden: Tensor, upstream: Tensor, reduction: Reduction
    ) -> tuple[Tensor, dict[str, tuple[Tensor, ...]]] | None:
        """Run block `index` forward and backward on batch `number` in one compiled graph.

        Args:
            index: index of the block.
            number: index of the batch.
            hidden: input of the block, (windows, seqlen, hidden).
            upstream: gradient at its output, of the same shape.
            reduction: what to compute for each linear.

        Returns:
            The gradient at `hidden`, and the reduction of every linear by key; None if the block
            is not compiled.
        """
        order, compiled = self.probe.orders[index], self._compiled_gradients
        if order is None or not self._compiles(index, hidden, compiled):
            return None
        linears = {linear.key: linear for linear in self.decoder.linears[index]}
        return compiled.run(
            self.decoder.blocks[index],
            [linears[key] for key in order.keys],
            order,
            self._calls[index][number],
            hidden,
            upstream,
            reduction,
        )

    @torch.no_grad()
    def run(self, index: int, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Return the output of block `index` for the hidden states `hidden`."""
        return [self.call(index, number, part) for number, part in enumerate(hidden)]

    @torch.no_grad()
    def measure(
        self,
        index: int,
        hidden: Iterable[Tensor],
        needs: frozenset[Need],
        *,
        outputs: bool,
        check: bool = True,
    ) -> tuple[list[Tensor], dict[str, InputStatistics]]:
        """Run block `index` and measure the inputs of its prunable linears.

        Args:
            index: index of the block.
            hidden: input of the block, one tensor (windows, seqlen, hidden) per batch.
            needs: statistics to collect, over the windows of all devices.
            outputs: whether to return the output of the block. Without it, the last product is
                not computed.
            check: whether to check the inputs for NaN and infinity, which synchronises a GPU;
                otherwise the caller checks them with `raise_unless_finite`.

        Returns:
            The outputs by batch (none unless `outputs`), and the statistics by key of the linear.
        """
        collector = StatisticsCollector(needs)
        block_outputs: list[Tensor] = []
        for number, part in enumerate(hidden):
            collector.start_batch(*part.shape[:2])
            compiled_pass = self._compiled(index, number, part, outputs=outputs)
            if compiled_pass is None:
                output = self._hooked(index, number, part, collector, outputs=outputs)
            else:
                output, inputs = compiled_pass
                for key in inputs:
                    collector.see(key, inputs[key])
                del compiled_pass, inputs  # frees the inputs before the next batch runs
            if outputs and output is not None:
                block_outputs.append(output)
        linears = self.decoder.linears[index]
        statistics = joined_statistics(collector, linears, needs, self.share)
        windows = collector.windows if self.share.whole else self.share.count
        statistics = completed(linears, statistics, needs, windows)
        if check and statistics:
            finite = torch.stack([inputs.finite for inputs in statistics.values()])
            raise_unless_finite(statistics, finite.tolist())
        return block_outputs, statistics

    def _hooked(
        self,
        index: int,
        number: int,
        hidden: Tensor,
        collector: StatisticsCollector,
        *,
        outputs: bool,
    ) -> Tensor | None:
        """Run a block with hooks that feed `collector`; return None if it ends early."""
        block, linears = self.decoder.blocks[index], self.decoder.linears[index]
        stop_after = None if outputs or self.probe.orders[index] is None else len(linears)
        with _input_hooks(linears, collector, stop_after), self.decoder.separate_experts(index):
            try:
                return self._calls[index][number](block, hidden)
            except _Stop:
                return None


def raise_unless_finite(keys: Iterable[str], finite: Iterable[object]) -> None:
    """Raise `UserError` for the first linear whose input is not finite."""
    for key, is_finite in zip(keys, finite, strict=True):
        if not is_finite:
            raise UserError(
                f"model: the input of '{key}' is NaN or infinite on the calibration windows; "
                "try model.dtype=float32 or bfloat16"
            )


@contextmanager
def _input_hooks(
    linears: Sequence[PrunableLinear], collector: StatisticsCollector, stop_after: int | None
) -> Iterator[None]:
    """Pass the inputs of `linears` to `collector`; raise `_Stop` after `stop_after` inputs."""

    def hook(key: str) -> Any:
        def see(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            collector.see(key, inputs[0])
            if stop_after is not None and collector.seen_in_batch == stop_after:
                raise _Stop

        return see

    handles = [lin.module.register_forward_pre_hook(hook(lin.key)) for lin in linears]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
