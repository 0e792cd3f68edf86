"""Statistics of the inputs of linears, accumulated in float32."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


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
        readers: number of linears that read the input.
        memo: results of `once`.
    """

    square_sums: Tensor
    sums: Tensor | None = None
    variances: Tensor | None = None
    gram: Tensor | None = None
    readers: int = 1
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
    Windows are measured one by one and in order, because a sum over the windows of a batch rounds
    as the size of the batch requires.
    """

    def __init__(self, needs: frozenset[Need]) -> None:
        self._needs = needs
        self._batch = 0
        self._leader: dict[str, str] = {}
        self._last: tuple[Tensor, str] | None = None
        self._totals: dict[str, _Totals] = {}
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
        totals = self._totals.setdefault(key, _Totals(self._needs))
        for window in x.reshape(self._batch, -1, x.shape[-1]):
            totals.add(window.contiguous())

    def finish(self) -> dict[str, InputStatistics]:
        """Return the statistics over all batches, by key of the linear."""
        readers = Counter(self._leader.values())
        statistics = {
            leader: totals.statistics(readers[leader]) for leader, totals in self._totals.items()
        }
        return {key: statistics[leader] for key, leader in self._leader.items()}


class _Totals:
    """Statistics of one input, accumulated over windows."""

    def __init__(self, needs: frozenset[Need]) -> None:
        self._needs = needs
        self._by_window: dict[str, list[Tensor]] = {}
        self._gram: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Add one window x: (tokens, cols)."""
        if Need.GRAM in self._needs:
            self._gram = _plus_gram(self._gram, x)
        if not x.is_cuda or Need.VARIANCE in self._needs:  # GPU kernels convert sums themselves
            x = x.float()
        self._append("square_sums", _square_sums(x))
        if Need.SUM in self._needs:
            self._append("sums", x.sum(0, dtype=torch.float32))
        if Need.VARIANCE in self._needs:
            self._append("variances", x.var(0, correction=0))

    def _append(self, name: str, values: Tensor) -> None:
        self._by_window.setdefault(name, []).append(values)

    def statistics(self, readers: int) -> InputStatistics:
        """Return the statistics over all windows so far of an input with `readers` linears."""
        by_window: dict[str, Any] = {
            name: torch.stack(values) for name, values in self._by_window.items()
        }
        return InputStatistics(**by_window, gram=self._gram, readers=readers)


def _square_sums(x: Tensor) -> Tensor:
    """Sum x² over the tokens in float32: (tokens, cols) → (cols,)."""
    if x.dtype == torch.float32:
        return x.square().sum(0)
    norms: Tensor = torch.linalg.vector_norm(x, dim=0, dtype=torch.float32)
    return norms.square()


def _plus_gram(total: Tensor | None, x: Tensor) -> Tensor:
    """Return `total` + xᵀ x in float32, `total` (cols, cols) and x (tokens, cols).

    A GPU multiplies 16-bit inputs without conversion and accumulates in float32.
    """
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        if total is None:
            return torch.mm(x.T, x, out_dtype=torch.float32)
        return torch.addmm(total, x.T, x, out_dtype=torch.float32, out=total)
    x = x.float()
    return x.T @ x if total is None else total.addmm_(x.T, x)
