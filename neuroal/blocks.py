"""Run decoder blocks one at a time, with the arguments the model itself passes to them.

The model is run once with every block replaced by a recorder that hands its input on unchanged.
So all keyword arguments of all blocks (masks, position embeddings, sliding windows, …) are known
at the price of an embedding, and nothing about them is rebuilt by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel, PrunableLinear
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
    _runs_each_once: list[bool] = field(default_factory=list)

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
            subject.probed = _probe(subject, tokens[:1, :PROBE_TOKENS].to(subject.device))
        returns_tuple, each_once = subject.probed
        runner = cls(subject, [], [], returns_tuple, [], each_once)
        runner._record(tokens, batch)
        return runner

    @torch.no_grad()
    def on(self, tokens: Tensor, batch: int) -> BlockRunner:
        """A runner of the same model on other windows (windows, seqlen)."""
        runner = BlockRunner(self.subject, [], [], self._returns_tuple, [], self._runs_each_once)
        runner._record(tokens, batch)
        return runner

    def _record(self, tokens: Tensor, batch: int) -> None:
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
        block, call = self.subject.blocks[index], self._calls[index][batch]
        keyword = self._input_keyword[index]
        if keyword is None:
            output = block(hidden, *call.args, **call.kwargs)
        else:
            output = block(*call.args, **{keyword: hidden}, **call.kwargs)
        result: Tensor = output[0] if self._returns_tuple[index] else output
        return result

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
    ) -> tuple[list[Tensor], dict[str, InputStatistics]]:
        """Run block `index` and measure the inputs of its prunable linears.

        Args:
            index: block.
            hidden: its input.
            needs: what to measure.
            outputs: whether the block's output is wanted; if not, the pass ends as soon as the
                last linear has seen its input, so the last product is never computed.

        Returns:
            The outputs (empty unless wanted) and the statistics of each linear, by its key.

        Raises:
            UserError: an input is NaN or infinite (names the linear).
        """
        linears = self.subject.linears[index]
        collector = StatisticsCollector(needs)
        results: list[Tensor] = []
        stop_after = None if outputs or not self._runs_each_once[index] else len(linears)
        with _input_hooks(linears, collector, stop_after):
            for batch, part in enumerate(hidden):
                collector.start_batch(len(part))
                try:
                    output = self.call(index, batch, part)
                except _Stop:
                    continue
                if outputs:
                    results.append(output)
        statistics = collector.finish()
        for key, found in statistics.items():
            if not bool(torch.isfinite(found.square_sums).all()):
                raise UserError(
                    f"model: the input of '{key}' is NaN or infinite on the calibration windows; "
                    "try model.dtype=float32 or bfloat16"
                )
        return results, statistics


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


def _probe(subject: DecoderModel, tokens: Tensor) -> tuple[list[bool], list[bool]]:
    """What each block returns (tuple or tensor), and whether it calls each linear just once."""
    returns_tuple = [False] * len(subject)
    calls = {linear.key: 0 for linear in subject}
    handles = []
    for index, block in enumerate(subject.blocks):

        def note_output(_m: nn.Module, _i: Any, output: Any, index: int = index) -> None:
            returns_tuple[index] = isinstance(output, tuple)

        handles.append(block.register_forward_hook(note_output))
    for linear in subject:

        def note_call(_m: nn.Module, _i: Any, key: str = linear.key) -> None:
            calls[key] += 1

        handles.append(linear.module.register_forward_pre_hook(note_call))
    try:
        subject.model(tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    each_once = [all(calls[linear.key] == 1 for linear in block) for block in subject.linears]
    return returns_tuple, each_once


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
