"""Candidates by replaying one that was recorded: where launching takes longer than computing."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from neuroal.kernels.selection import has_kernel
from neuroal.pruners.base import FactorPruner
from neuroal.pruners.budget import Allotment
from neuroal.topups.alignment import Alignment, AlignmentCriterion, terms
from neuroal.topups.base import AllocationContext

Work = Callable[[], Tensor]


class RecordedAlignment:
    """An `AlignmentCriterion` on few tokens, without the host's work of launching every kernel.

    The first candidate is measured as usual, which compiles and loads all kernels; the second is
    recorded, with numbers of zeros at a fixed place, and replayed from then on. Its criterion is
    always complete, and differences are not among the results.

    Args:
        criterion: of a model and a pruner that are `recordable`.
        record: makes a replay of what it is given.
    """

    def __init__(
        self, criterion: AlignmentCriterion, record: Callable[[Work], Work] | None = None
    ) -> None:
        self._criterion = criterion
        self._record = record or recorded
        self._zeros: dict[str, Allotment] = {}
        self._replay: Work | None = None
        self._broken = False

    def measure(self, allotments: Mapping[str, Allotment], bound: float = math.inf) -> Alignment:
        """Criterion of one candidate; the model is left dense."""
        if not self._zeros:
            device = self._criterion.subject.device
            self._zeros = {
                key: dataclasses.replace(found, counts=found.counts.to(device, copy=True))
                for key, found in allotments.items()
            }
            return self._criterion.measure(allotments, bound)
        for key, mine in self._zeros.items():
            mine.counts.copy_(allotments[key].counts)
        if self._replay is None and not self._broken:
            try:
                self._replay = self._record(self._figures)
            except RuntimeError as error:
                self._broken = True
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(f"candidates are ranked more slowly: {reason}", stacklevel=2)
        if self._replay is None:
            return self._criterion.measure(allotments, bound)
        criterion = 0.0
        for term in terms(list(self._criterion.subject), self._replay().cpu()):
            criterion += term
        return Alignment(criterion, {})

    def _figures(self) -> Tensor:
        blocks = self._criterion.blocks(self._zeros)
        return torch.cat([self._criterion.figures(norms) for _, _, norms in blocks], dim=1)


def recorded(work: Work) -> Work:
    """A replay of `work` by a CUDA graph.

    `work` may neither wait for the GPU nor depend on anything that is not in its memory.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Other threads go on sending the zeros of the next candidates to the GPU.
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
    """Whether nothing waits for the GPU while the model of `context` is pruned and run."""
    return (
        context.subject.device.type == "cuda"
        and not context.subject.placement.offloads
        and isinstance(context.pruner, FactorPruner)
        and context.group is None
        and all(has_kernel(linear.module.weight) for linear in context.subject)
    )
