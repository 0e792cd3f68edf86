"""Measure the candidates of a search on several devices at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch

from neuroal.pruners.budget import Allotment
from neuroal.topups.outcome import Criterion, Outcome


class SpreadCriterion:
    """One criterion a device, each on its own copy of the model.

    A candidate goes to whichever device is free. None knows of the others, so what comes out is
    what a single device would have found.

    Args:
        workers: the criteria; the first also measures single candidates.
        devices: of each.
    """

    def __init__(self, workers: Sequence[Criterion], devices: Sequence[torch.device]) -> None:
        self._workers, self._devices = tuple(workers), tuple(devices)

    def measure(self, allotments: Mapping[str, Allotment], bound: float = math.inf) -> Outcome:
        """Outcome of one candidate."""
        return self._workers[0].measure(allotments, bound)

    def measure_all(self, candidates: Iterable[Mapping[str, Allotment]]) -> Iterator[Outcome]:
        """Outcomes of all candidates, in their order."""
        free: SimpleQueue[int] = SimpleQueue()
        for number in range(len(self._workers)):
            free.put(number)

        def measure(allotments: Mapping[str, Allotment]) -> Outcome:
            number = free.get()
            try:
                if self._devices[number].type == "cuda":
                    torch.cuda.set_device(self._devices[number])  # of this thread
                return self._workers[number].measure(allotments)
            finally:
                free.put(number)

        with ThreadPoolExecutor(len(self._workers), thread_name_prefix="candidate") as pool:
            yield from pool.map(measure, candidates)
