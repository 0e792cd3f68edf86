"""Batches that do not fit into memory are halved, and it is said so."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from neuroal.errors import UserError

Result = TypeVar("Result")
SIGNS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In messages of errors that are no `torch.OutOfMemoryError` but mean it."""


@dataclass(eq=False)
class Batch:
    """How many windows a stage takes in one forward pass.

    Attributes:
        stage: its name, for messages.
        size: windows, at present.
        divides: whether each size must divide the one before, so that batches can be cut.
        too_large: sizes that did not fit, in order.
    """

    stage: str
    size: int
    divides: bool = False
    too_large: list[int] = field(default_factory=list)

    def attempt(self, work: Callable[[], Result]) -> tuple[Result] | None:
        """What `work` returns, in a tuple; None if memory did not suffice, which halves `size`.

        Raises:
            UserError: not even one window fits.
        """
        try:
            return (work(),)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Only here, where the traceback no longer holds them, are the tensors of `work` gone.
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
        self._halve()
        return None

    def fit(self, work: Callable[[int], Result]) -> Result:
        """`work` with `size`, again with half of it, and so on until memory suffices."""
        while True:
            done = self.attempt(lambda: work(self.size))
            if done is not None:
                return done[0]

    def _halve(self) -> None:
        if self.size == 1:
            raise UserError(
                f"{self.stage}: memory does not suffice for a single window; use offload=blocks, "
                "or a shorter calibration.seqlen or task.seqlen"
            )
        self.too_large.append(self.size)
        half = range(self.size // 2, 0, -1)
        self.size = next(n for n in half if not self.divides or self.size % n == 0)
        warnings.warn(
            f"{self.stage}: memory does not suffice for batches of {self.too_large[-1]} windows; "
            f"going on with {self.size}",
            stacklevel=3,
        )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether `error` says that memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)
