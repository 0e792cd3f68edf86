"""Statistics of the inputs of linears, accumulated in float32."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
LARGEST_COPY = 2**26
"""Maximum number of entries in a float32 copy of an input."""


class Need(enum.Enum):
    """An input statistic that a method may request; only requested statistics are computed."""

    NORM = "norm"
    SUM = "sum"
    VARIANCE = "variance"
    GRAM = "gram"


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """Statistics of the input x of one linear over calibration windows, in float32.

    Statistics that were not requested are None.

    Attributes:
        square_sums: Σ_tokens x_j² per window: (windows, cols).
        sums: Σ_tokens x_j per window: (windows, cols).
        variances: biased variance of x_j over the tokens of each window: (windows, cols).
        gram: Σ x xᵀ over all tokens: (cols, cols).
        memo: results of `once`.
    """

    square_sums: Tensor
    sums: Tensor | None = None
    variances: Tensor | None = None
    gram: Tensor | None = None
    memo: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, evaluated once for these statistics and `key`."""
        if key not in self.memo:
            self.memo[key] = compute()
        result: T = self.memo[key]
        return result

    @property
    def windows(self) -> int:
        return self.square_sums.shape[0]

    @cached_property
    def norm(self) -> Tensor:
        """Input norm a_j = sqrt(mean over windows of Σ_tokens x_j²): (cols,)."""
        return self.square_sums.mean(0).sqrt()

    @cached_property
    def finite(self) -> Tensor:
        """Whether all inputs are finite: () bool, on the device of the inputs."""
        return torch.isfinite(self.square_sums).all()

    @cached_property
    def harmonic_norm(self) -> Tensor:
        """As `norm` with weight 1/k for window k = 1, 2, …: the reference's SparseGPT search."""
        weights = 1.0 / torch.arange(1, self.windows + 1, device=self.square_sums.device)
        return (weights[:, None] * self.square_sums).mean(0).sqrt()


class StatisticsCollector:
    """Accumulates `InputStatistics` of several linears over batches of windows.

    Consecutive linears with the same input tensor (q, k and v; gate and up) share its statistics.
    """

    def __init__(self, needs: frozenset[Need]) -> None:
        self._needs = needs
        self._batch = 0
        self._leader: dict[str, str] = {}
        self._last: tuple[Tensor, str] | None = None
        self._totals: dict[str, InputStatistics] = {}
        self.seen_in_batch = 0

    def start_batch(self, windows: int) -> None:
        self._batch = windows
        self._last = None
        self.seen_in_batch = 0

    def see(self, key: str, x: Tensor) -> None:
        """Add the input of a linear: (windows, seqlen, cols) or (windows · seqlen, cols)."""
        self.seen_in_batch += 1
        if self._last is not None and self._last[0] is x:
            self._leader[key] = self._last[1]
            return
        self._last = (x, key)
        self._leader[key] = key
        windows = x.reshape(self._batch, -1, x.shape[-1])
        limit = len(windows) if self._copies_none(x) else LARGEST_COPY // windows[0].numel()
        for piece in windows.split(max(1, limit)):
            part = self._measure(piece)
            self._totals[key] = _join(self._totals[key], part) if key in self._totals else part

    def _copies_none(self, x: Tensor) -> bool:
        """Return whether the statistics need no float32 copy of `x`: GPU kernels convert it."""
        return x.is_cuda and Need.VARIANCE not in self._needs

    def _measure(self, x: Tensor) -> InputStatistics:
        gram = _gram(x.flatten(0, 1)) if Need.GRAM in self._needs else None
        if not self._copies_none(x):
            x = x.float()
        return InputStatistics(
            square_sums=_square_sums(x),
            sums=x.sum(1, dtype=torch.float32) if Need.SUM in self._needs else None,
            variances=x.var(1, correction=0) if Need.VARIANCE in self._needs else None,
            gram=gram,
        )

    def finish(self) -> dict[str, InputStatistics]:
        """Return the statistics over all batches, by key of the linear."""
        return {key: self._totals[leader] for key, leader in self._leader.items()}


def _square_sums(x: Tensor) -> Tensor:
    """Sum x² over the tokens in float32: (windows, tokens, cols) → (windows, cols)."""
    if x.dtype == torch.float32:
        return x.square().sum(1)
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)
    return norms.square()


def _gram(x: Tensor) -> Tensor:
    """Return xᵀ x in float32: (tokens, cols) → (cols, cols).

    A GPU multiplies 16-bit inputs without conversion and accumulates in float32.
    """
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(x.T, x, out_dtype=torch.float32)
    x = x.float()
    return x.T @ x


def _join(first: InputStatistics, second: InputStatistics) -> InputStatistics:
    def cat(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return InputStatistics(
        square_sums=torch.cat([first.square_sums, second.square_sums]),
        sums=cat(first.sums, second.sums),
        variances=cat(first.variances, second.variances),
        gram=None if first.gram is None or second.gram is None else first.gram + second.gram,
    )
