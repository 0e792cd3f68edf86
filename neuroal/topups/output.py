"""Criteria on the model's output: how far a candidate moves what the model says."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, swapped_weights
from neuroal.head import logits_by_chunks
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Allotment
from neuroal.statistics import InputStatistics


@dataclass(frozen=True)
class OutputOutcome:
    """Outcome of one candidate; lower is better."""

    criterion: float
    complete: bool = True


class OutputCriterion(ABC):
    """Prunes the whole model block by block on fixed windows and looks at its logits.

    Statistics of a block are measured on inputs that come from the pruned blocks before it, as
    when the model is pruned in the end. Subclasses judge the hidden states that leave the last
    block, window by window.
    """

    def __init__(self, runner: BlockRunner, pruner: Pruner) -> None:
        self._runner = runner
        self._pruner = pruner
        self._first: dict[str, InputStatistics] | None = None

    def measure(
        self, allotments: Mapping[str, Allotment], bound: float = math.inf
    ) -> OutputOutcome:
        """Criterion for one candidate, known at the last block only; the model is left dense."""
        runner, hidden = self._runner, self._runner.embedded
        for index, linears in runner.subject.walk():
            dense = self._dense(index, hidden)
            pruned = {
                lin.key: self._pruner.pruned_weight(
                    lin.module.weight.data, dense.get(lin.key), allotments[lin.key]
                )
                for lin in linears
            }
            with swapped_weights(linears, pruned):
                hidden = runner.run(index, hidden)
        losses = [self._judge(index, window) for index, window in enumerate(windows_of(hidden))]
        return OutputOutcome(self._summarise(sum(losses) / len(losses)))

    def _dense(self, index: int, hidden: list[Tensor]) -> dict[str, InputStatistics]:
        if not self._pruner.needs:
            return {}
        if index == 0 and self._first is not None:
            return self._first
        _, statistics = self._runner.measure(index, hidden, self._pruner.needs, outputs=False)
        if index == 0:
            self._first = statistics
        return statistics

    @abstractmethod
    def _judge(self, window: int, hidden: Tensor) -> float:
        """Mean loss over the tokens of a window, from its last hidden states (seqlen, hidden)."""

    def _summarise(self, mean: float) -> float:
        return mean


class OutputKL(OutputCriterion):
    """Mean over tokens of KL(p_dense ‖ p_sparse)."""

    def __init__(self, runner: BlockRunner, pruner: Pruner) -> None:
        super().__init__(runner, pruner)
        hidden = runner.embedded
        for index, _ in runner.subject.walk():
            hidden = runner.run(index, hidden)
        self._windows = windows_of(hidden)

    def _judge(self, window: int, hidden: Tensor) -> float:
        dense = logits_by_chunks(self._runner, self._windows[window])
        total = 0.0
        for (_, before), (_, after) in zip(
            dense, logits_by_chunks(self._runner, hidden), strict=True
        ):
            divergence = torch.nn.functional.kl_div(
                after.log_softmax(-1), before.log_softmax(-1), reduction="sum", log_target=True
            )
            total += float(divergence)
        return total / len(hidden)


class OutputPerplexity(OutputCriterion):
    """Perplexity on the windows themselves: exp of the mean loss over predicted tokens."""

    def __init__(self, runner: BlockRunner, pruner: Pruner, tokens: Tensor) -> None:
        super().__init__(runner, pruner)
        self._tokens = tokens

    def _judge(self, window: int, hidden: Tensor) -> float:
        targets = self._tokens[window, 1:].to(hidden.device)
        total = 0.0
        for begin, logits in logits_by_chunks(self._runner, hidden[:-1]):
            wanted = targets[begin : begin + len(logits)]
            total += float(
                torch.nn.functional.cross_entropy(logits, wanted.to(logits.device), reduction="sum")
            )
        return total / len(targets)

    def _summarise(self, mean: float) -> float:
        return math.exp(min(mean, 700.0))  # beyond that a float overflows


def windows_of(hidden: list[Tensor]) -> list[Tensor]:
    """Batches (windows, seqlen, hidden) as a list of windows (seqlen, hidden)."""
    return [window for batch in hidden for window in batch]
