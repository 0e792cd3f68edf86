"""Run decoder blocks one at a time, with the arguments the model itself passes to them.

The model is run once with every block replaced by a recorder that hands its input on unchanged.
So all keyword arguments of all blocks (masks, position embeddings, sliding windows, …) are known
at the price of an embedding, and nothing about them is rebuilt by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.compiled import BlockCall, CallOrder
from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.probe import probe_blocks
from neuroal.statistics import InputStatistics, Need, StatisticsCollector

PROBE_TOKENS = 8


class _Stop(Exception):
    """Ends a forward pass from inside a hook once all that was wanted has been seen."""


@dataclass(frozen=True, eq=False)
class _Call:
    """Arguments of one block for one batch, but for the hidden states."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(eq=False)
class BlockRunner:
    """Replays the blocks of a model on fixed windows.

    Hidden states are lists with one tensor (windows of the batch, seqlen, hidden) a batch.

    Attributes:
        embedded: the hidden states that enter block 0.
    """

    subject: DecoderModel
    embedded: list[Tensor]
    _calls: list[list[_Call]]
    _returns_tuple: list[bool]
    _input_keyword: list[str | None]
    _orders: list[CallOrder | None] = field(default_factory=list)
    _windows: int = 0

    @classmethod
    @torch.no_grad()
    def capture(cls, subject: DecoderModel, tokens: Tensor, batch: int) -> BlockRunner:
        """Embed `tokens` (windows, seqlen) and record the arguments of every block.

        Args:
            subject: the model.
            tokens: token ids.
            batch: windows in one forward pass.
        """
        if subject.probed is None:
            subject.probed = probe_blocks(subject, tokens[:1, :PROBE_TOKENS].to(subject.device))
        returns_tuple, orders = subject.probed
        runner = cls(subject, [], [], returns_tuple, [], orders)
        runner._record(tokens, batch)
        return runner

    @torch.no_grad()
    def on(self, tokens: Tensor, batch: int) -> BlockRunner:
        """A runner of the same model on other windows (windows, seqlen)."""
        runner = BlockRunner(self.subject, [], [], self._returns_tuple, [], self._orders)
        runner._record(tokens, batch)
        return runner

    def _record(self, tokens: Tensor, batch: int) -> None:
        self._windows = min(batch, len(tokens))
        self._calls = [[] for _ in self.subject.blocks]
        self._input_keyword = [None] * len(self.subject)
        with ExitStack() as stack:
            for index, block in enumerate(self.subject.blocks):
                stack.enter_context(replaced_forward(block, self._recorder(index)))
            for part in tokens.split(batch):
                try:
                    self.subject.model(part.to(self.subject.device), use_cache=False)
                except _Stop:
                    continue

    def _recorder(self, index: int) -> Any:
        last = index == len(self.subject) - 1

        def record(*args: Any, **kwargs: Any) -> Any:
            if args:
                hidden, args = args[0], args[1:]
            else:
                self._input_keyword[index] = "hidden_states"
                hidden = kwargs.pop("hidden_states")
            if index == 0:
                self.embedded.append(hidden)
            self._calls[index].append(_Call(args, kwargs))
            if last:
                raise _Stop
            return (hidden,) if self._returns_tuple[index] else hidden

        return record

    def returns_tuple(self, index: int) -> bool:
        """Whether block `index` returns a tuple rather than a tensor."""
        return self._returns_tuple[index]

    def call(self, index: int, batch: int, hidden: Tensor) -> Tensor:
        """Output of block `index` on batch `batch`; gradients flow where they are enabled."""
        found = self._compiled(index, batch, hidden, outputs=True)
        if found is not None and found[0] is not None:
            return found[0]
        return self._block_call(index, batch)(self.subject.blocks[index], hidden)

    def _block_call(self, index: int, batch: int) -> BlockCall:
        call = self._calls[index][batch]
        return BlockCall(
            call.args, call.kwargs, self._input_keyword[index], self._returns_tuple[index]
        )

    def _compiled(
        self, index: int, batch: int, hidden: Tensor, *, outputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]] | None:
        """Output of a block and the inputs of its linears, compiled; None where that is not done.

        Batches of another size than the first would need a graph of their own.
        """
        order, compiled = self._orders[index], self.subject.compiled
        linears = self.subject.linears[index]
        if (
            order is None
            or torch.is_grad_enabled()
            or len(hidden) != self._windows
            or not compiled.takes(sum(linear.numel for linear in linears), hidden)
        ):
            return None
        return compiled.run(
            self.subject.blocks[index],
            [linear.module for linear in linears],
            order,
            self._block_call(index, batch),
            hidden,
            outputs=outputs,
        )

    @torch.no_grad()
    def run(self, index: int, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Output of block `index` on `hidden`."""
        return [self.call(index, batch, part) for batch, part in enumerate(hidden)]

    @torch.no_grad()
    def measure(
        self,
        index: int,
        hidden: Sequence[Tensor],
        needs: frozenset[Need],
        *,
        outputs: bool,
        check: bool = True,
    ) -> tuple[list[Tensor], dict[str, InputStatistics]]:
        """Run block `index` and measure the inputs of its prunable linears.

        Args:
            index: block.
            hidden: its input.
            needs: what to measure.
            outputs: whether the block's output is wanted; if not, the pass ends as soon as the
                last linear has seen its input, so the last product is never computed.
            check: whether to look for NaN and infinity, which waits for a GPU; if not, it is left
                to the caller (`raise_unless_finite`).

        Returns:
            The outputs (empty unless wanted) and the statistics of each linear, by its key.

        Raises:
            UserError: an input is NaN or infinite (names the linear).
        """
        collector = StatisticsCollector(needs)
        results: list[Tensor] = []
        for batch, part in enumerate(hidden):
            collector.start_batch(len(part))
            found = self._compiled(index, batch, part, outputs=outputs)
            if found is None:
                output = self._hooked(index, batch, part, collector, outputs=outputs)
            else:
                output = found[0]
                collector.see_all(found[1])
                del found  # the inputs would stay alive while the next batch runs
            if outputs and output is not None:
                results.append(output)
        statistics = collector.finish()
        if check and statistics:
            finite = torch.stack([found.finite for found in statistics.values()])
            raise_unless_finite(statistics, finite.tolist())
        return results, statistics

    def _hooked(
        self,
        index: int,
        batch: int,
        hidden: Tensor,
        collector: StatisticsCollector,
        *,
        outputs: bool,
    ) -> Tensor | None:
        """Output of a block while `collector` looks on; it ends early where none is wanted."""
        block, linears = self.subject.blocks[index], self.subject.linears[index]
        stop_after = None if outputs or self._orders[index] is None else len(linears)
        with _input_hooks(linears, collector, stop_after):
            try:
                return self._block_call(index, batch)(block, hidden)
            except _Stop:
                return None


def raise_unless_finite(keys: Iterable[str], finite: Iterable[object]) -> None:
    """Raise `UserError` for the first of `keys` whose place in `finite` is not true."""
    for key, fine in zip(keys, finite, strict=True):
        if not fine:
            raise UserError(
                f"model: the input of '{key}' is NaN or infinite on the calibration windows; "
                "try model.dtype=float32 or bfloat16"
            )


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Let `module` compute `forward` inside the context."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward  # the class's own forward shows again
        else:
            module.forward = before


@contextmanager
def _input_hooks(
    linears: Sequence[PrunableLinear], collector: StatisticsCollector, stop_after: int | None
) -> Iterator[None]:
    """Feed the inputs of `linears` to `collector`; end the pass after `stop_after` of them."""

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


@contextmanager
def swapped_weights(
    linears: Sequence[PrunableLinear], weights: Mapping[str, Tensor]
) -> Iterator[None]:
    """Let `linears` compute with `weights` (by key) inside the context; no copy is made."""
    dense = {linear.key: linear.module.weight.data for linear in linears}
    for linear in linears:
        linear.module.weight.data = weights[linear.key]
    try:
        yield
    finally:
        for linear in linears:
            linear.module.weight.data = dense[linear.key]


@contextmanager
def leaf_weights(
    linears: Sequence[PrunableLinear], weights: Mapping[str, Tensor]
) -> Iterator[list[nn.Parameter]]:
    """Let `linears` compute with `weights` (by key) as parameters of their own.

    A graph made inside the context keeps them, and so can be walked back outside of it.
    """
    dense = [linear.module.weight for linear in linears]
    leaves = [nn.Parameter(weights[linear.key]) for linear in linears]
    for linear, leaf in zip(linears, leaves, strict=True):
        linear.module.weight = leaf
    try:
        yield leaves
    finally:
        for linear, weight in zip(linears, dense, strict=True):
            linear.module.weight = weight
