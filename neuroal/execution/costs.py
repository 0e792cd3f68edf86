"""Time and memory of the stages of a run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from neuroal.execution.memory import process_peak_bytes
from neuroal.execution.oom import AdaptiveBatch

T = TypeVar("T")


@dataclass
class StageCosts:
    """Time and peak memory of each stage of a run.

    Attributes:
        seconds: wall-clock time of each stage.
        peak_bytes: on a GPU, peak allocated memory during the stage; on a CPU, peak resident
            memory of the process so far.
        calibration_tokens: number of calibration tokens used by ``allocate`` and by ``prune``.
        batch: windows per forward pass of these stages.
        too_large: batch sizes that ran out of memory.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    calibration_tokens: dict[str, int] = field(default_factory=dict)
    batch: dict[str, int] = field(default_factory=dict)
    too_large: dict[str, list[int]] = field(default_factory=dict)

    def record_batch(self, batch: AdaptiveBatch) -> None:
        """Record the batch size of a stage and the sizes that ran out of memory."""
        self.batch[batch.stage] = batch.size
        if batch.too_large:
            self.too_large[batch.stage] = batch.too_large

    def to_dict(self) -> dict[str, Any]:
        """Return the costs as they are stored in a record."""
        return {key: dict(value) for key, value in vars(self).items() if key != "device"}

    def resume(self, costs: Mapping[str, Any]) -> None:
        """Restore costs from `to_dict`; a stage that runs again replaces its earlier costs."""
        for key, values in costs.items():
            getattr(self, key).update(values)

    @contextmanager
    def stage(self, name: str, *, more: bool = False) -> Iterator[None]:
        """Measure time and memory of the body; a GPU is synchronised before and after.

        With `more`, add the seconds to those of the stage so far instead of replacing them.
        """
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize(self.device)
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else process_peak_bytes()
        self.peak_bytes[name] = max(peak, self.peak_bytes.get(name, 0))
        before = self.seconds.get(name, 0.0) if more else 0.0
        self.seconds[name] = before + time.perf_counter() - start

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield `items`, adding the time that each takes to produce to stage `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name, more=True):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
