"""Criteria on the logits: how much a candidate changes the model's predictions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from neuroal.execution.lm_head import logits_by_chunks
from neuroal.execution.pruned_walk import PrunedWalk
from neuroal.execution.runner import BlockRunner
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.pruners.base import Pruner
from neuroal.search.criteria.base import Budgets, CandidateResult, pruned_by


class OutputCriterion(ABC):
    """A criterion on the logits of the pruned model, averaged over fixed windows.

    The statistics of a block are collected on inputs that come from the pruned blocks before it, as
    when the model is finally pruned. Subclasses define the loss of a window.
    """

    def __init__(self, runner: BlockRunner, pruner: Pruner) -> None:
        self._runner, self._pruner = runner, pruner
        self._first: dict[str, InputStatistics] = {}

    def evaluate(self, budgets: Budgets) -> CandidateResult:
        walk = PrunedWalk(
            self._runner,
            pruned_by(self._pruner, budgets),
            dense_needs=self._pruner.needs,
            first=self._first,
        )
        windows = windows_of(walk.finish())
        losses = [self._loss(index, window) for index, window in enumerate(windows)]
        return CandidateResult(self._summary(sum(losses) / len(losses)))

    @abstractmethod
    def _loss(self, window: int, hidden: Tensor) -> float:
        """Return the mean loss of a window, from its last hidden states (seqlen, hidden)."""

    def _summary(self, mean: float) -> float:
        """Return the criterion for the mean loss over all windows."""
        return mean


class OutputKL(OutputCriterion):
    """The criterion D = mean over tokens of KL(p_dense ‖ p_sparse)."""

    def __init__(self, runner: BlockRunner, pruner: Pruner) -> None:
        super().__init__(runner, pruner)
        hidden = runner.embedded
        for index, _ in runner.decoder.walk():
            hidden = runner.run(index, hidden)
        self._windows = windows_of(hidden)

    def _loss(self, window: int, hidden: Tensor) -> float:
        dense_logits = logits_by_chunks(self._runner, self._windows[window])
        sparse_logits = logits_by_chunks(self._runner, hidden)
        total = 0.0
        for (_, dense), (_, sparse) in zip(dense_logits, sparse_logits, strict=True):
            divergence = torch.nn.functional.kl_div(
                sparse.log_softmax(-1), dense.log_softmax(-1), reduction="sum", log_target=True
            )
            total += float(divergence)
        return total / len(hidden)


class OutputPerplexity(OutputCriterion):
    """The perplexity of the search windows: exp of the mean loss over predicted tokens."""

    def __init__(self, runner: BlockRunner, pruner: Pruner, tokens: Tensor) -> None:
        super().__init__(runner, pruner)
        self._tokens = tokens

    def _loss(self, window: int, hidden: Tensor) -> float:
        targets = self._tokens[window, 1:].to(hidden.device)
        total = 0.0
        for begin, logits in logits_by_chunks(self._runner, hidden[:-1]):
            next_tokens = targets[begin : begin + len(logits)].to(logits.device)
            loss = torch.nn.functional.cross_entropy(logits, next_tokens, reduction="sum")
            total += float(loss)
        return total / len(targets)

    def _summary(self, mean: float) -> float:
        return math.exp(min(mean, 700.0))  # a larger exponent overflows float64


def windows_of(hidden: list[Tensor]) -> list[Tensor]:
    """Return the windows (seqlen, hidden) of batches (windows, seqlen, hidden)."""
    return [window for batch in hidden for window in batch]
