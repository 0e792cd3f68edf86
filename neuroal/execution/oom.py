"""Halve batches that run out of memory, with a warning."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from neuroal.errors import UserError
from neuroal.files.gpu_errors import is_memory_error
from neuroal.parallel.peers import ALONE, Event, PeerOutOfMemory, Peers

Result = TypeVar("Result")


@dataclass(eq=False)
class AdaptiveBatch:
    """Number of windows per forward pass of a stage, reduced when memory runs out.

    If several devices do the stage together and one runs out of memory, all of them repeat their
    work on smaller batches.

    Attributes:
        divides: whether each size must divide the previous one, so that batches can be split.
        too_large: sizes that ran out of memory, in order.
        peers: the devices that do the stage together.
    """

    stage: str
    size: int
    divides: bool = False
    too_large: list[int] = field(default_factory=list)
    peers: Peers = ALONE

    def fits(self, work: Callable[[], object]) -> bool:
        """Call `work` and return whether memory sufficed; if it did not, halve `size`."""
        try:
            work()
            self.peers.meet()
            return True
        except PeerOutOfMemory:
            pass
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
            self.peers.meet(Event.OUT_OF_MEMORY)
        # The traceback keeps the tensors of `work` alive, so free memory after the except block.
        if torch.cuda.is_available():
            release_memory()
        self._halve()
        return False

    def run(self, work: Callable[[int], Result]) -> Result:
        """Return ``work(size)``, halving `size` until memory suffices."""
        results: list[Result] = []
        while not self.fits(lambda: results.append(work(self.size))):
            pass
        return results[0]

    def _halve(self) -> None:
        if self.size == 1:
            raise UserError(
                f"{self.stage}: memory does not suffice for a single window; use offload=blocks, "
                "or a shorter calibration.seqlen or task.seqlen"
            )
        self.too_large.append(self.size)
        smaller = range(self.size // 2, 0, -1)
        self.size = next(n for n in smaller if not self.divides or self.size % n == 0)
        warnings.warn(
            f"{self.stage}: memory does not suffice for batches of {self.too_large[-1]} windows; "
            f"continuing with {self.size}",
            stacklevel=3,
        )


def release_memory() -> None:
    """Free the tensors that only reference cycles keep, and what CUDA's allocator caches."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
