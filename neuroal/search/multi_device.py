"""Evaluate the candidates of a search on several devices in parallel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch

from neuroal.search.criteria.base import Budgets, CandidateResult, Criterion


class MultiDeviceCriterion:
    """One criterion per device, each on its own copy of the model.

    The next free device evaluates a candidate. Evaluations are independent, so the results equal
    those of a single device.

    Args:
        criteria: one criterion per device; the first also evaluates single candidates.
        devices: the device of each criterion.
    """

    def __init__(self, criteria: Sequence[Criterion], devices: Sequence[torch.device]) -> None:
        self._criteria, self._devices = tuple(criteria), tuple(devices)

    def evaluate(self, budgets: Budgets) -> CandidateResult:
        return self._criteria[0].evaluate(budgets)

    def evaluate_all(self, candidates: Iterable[Budgets]) -> Iterator[CandidateResult]:
        """Yield the results of all candidates, in their order."""
        free: SimpleQueue[int] = SimpleQueue()
        for number in range(len(self._criteria)):
            free.put(number)

        def evaluate(budgets: Budgets) -> CandidateResult:
            number = free.get()
            try:
                if self._devices[number].type == "cuda":
                    torch.cuda.set_device(self._devices[number])  # applies to this thread
                return self._criteria[number].evaluate(budgets)
            finally:
                free.put(number)

        with ThreadPoolExecutor(len(self._criteria), thread_name_prefix="candidate") as pool:
            yield from pool.map(evaluate, candidates)
