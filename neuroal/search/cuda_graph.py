"""Evaluate candidates by replaying a CUDA graph, which avoids launching kernels one by one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from neuroal.errors import first_line
from neuroal.kernels.selection import has_kernel
from neuroal.pruners.base import FactorPruner
from neuroal.search.context import AllocationContext
from neuroal.search.criteria.alignment import AlignmentCriterion, terms
from neuroal.search.criteria.base import Budgets, CandidateResult
from neuroal.sparsity.budget import LinearBudget

Work = Callable[[], Tensor]


class RecordedAlignment:
    """An `AlignmentCriterion` for short windows, evaluated by a CUDA graph.

    The first candidate is evaluated without a graph, which compiles and loads all kernels. The
    second is recorded with its budgets at fixed addresses; the graph is replayed for it and all
    later ones. Results from a graph have no differences.

    Args:
        criterion: criterion with a `recordable` model and pruner.
        record: returns a function that repeats the given work; None: `recorded`.
    """

    def __init__(
        self, criterion: AlignmentCriterion, record: Callable[[Work], Work] | None = None
    ) -> None:
        self._criterion, self._record = criterion, record or recorded
        self._budgets: dict[str, LinearBudget] = {}
        self._replay: Work | None = None
        self._broken = False

    def evaluate(self, budgets: Budgets) -> CandidateResult:
        if not self._budgets:
            device = self._criterion.decoder.device
            self._budgets = {
                key: dataclasses.replace(budget, counts=budget.counts.to(device, copy=True))
                for key, budget in budgets.items()
            }
            return self._criterion.evaluate(budgets)
        for key, budget in self._budgets.items():
            budget.counts.copy_(budgets[key].counts)
        if self._replay is None and not self._broken:
            try:
                self._replay = self._record(self._distances)
            except RuntimeError as error:
                self._broken = True
                warnings.warn(
                    f"the search runs without a CUDA graph and is slower: {first_line(error)}",
                    stacklevel=2,
                )
        if self._replay is None:
            return self._criterion.evaluate(budgets)
        criterion = 0.0
        for term in terms(list(self._criterion.decoder), self._replay().cpu()):
            criterion += term
        return CandidateResult(criterion)

    def _distances(self) -> Tensor:
        blocks = self._criterion.blocks(self._budgets)
        return torch.cat([self._criterion.distances(norms) for _, _, norms in blocks], dim=1)


def recorded(work: Work) -> Work:
    """Record `work` in a CUDA graph and return a function that replays it.

    `work` must not wait for the GPU and must depend only on GPU memory.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # A thread copies the budgets of the next candidates to the GPU during the capture.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            result = work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def recordable(context: AllocationContext) -> bool:
    """Return whether pruning and running the model of `context` never waits for the GPU."""
    return (
        context.decoder.device.type == "cuda"
        and not context.decoder.placement.offloads
        and not context.decoder.has_experts
        and isinstance(context.settings.pruner, FactorPruner)
        and context.settings.group is None
        and all(has_kernel(linear.weight) for linear in context.decoder)
    )
