"""What the pruners need to know about the inputs of a linear, gathered in float32."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LARGEST_COPY = 2**26
"""Numbers of an input in float32 at once."""


class Need(enum.Enum):
    """A statistic that a method may declare; nothing that no method declared is computed."""

    NORM = "norm"
    SUM = "sum"
    VARIANCE = "variance"
    GRAM = "gram"


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """Statistics of the input x of one linear over calibration windows; all float32.

    Attributes:
        square_sums: Σ_tokens x_j² of each window: (windows, cols).
        sums: Σ_tokens x_j of each window: (windows, cols), or None.
        variances: biased variance of x_j over the tokens of each window: (windows, cols), or None.
        gram: Σ over all tokens of x xᵀ: (cols, cols), or None.
    """

    square_sums: Tensor
    sums: Tensor | None = None
    variances: Tensor | None = None
    gram: Tensor | None = None

    @property
    def windows(self) -> int:
        return self.square_sums.shape[0]

    @cached_property
    def norm(self) -> Tensor:
        """a_j = sqrt(mean over windows of Σ_tokens x_j²), shape (cols,)."""
        return self.square_sums.mean(0).sqrt()

    @cached_property
    def finite(self) -> Tensor:
        """Whether no input is NaN or infinite: () bool, on the inputs' device."""
        return torch.isfinite(self.square_sums).all()

    @cached_property
    def harmonic_norm(self) -> Tensor:
        """As `norm`, with weight 1/k for window k = 1, 2, …: the reference's SparseGPT search."""
        weights = 1.0 / torch.arange(1, self.windows + 1, device=self.square_sums.device)
        return (weights[:, None] * self.square_sums).mean(0).sqrt()


class StatisticsCollector:
    """Accumulates `InputStatistics` of several linears over batches of windows.

    Linears that are handed the very same tensor (q, k and v; gate and up) share its statistics.
    """

    def __init__(self, needs: frozenset[Need]) -> None:
        self._needs = needs
        self._batch = 0
        self._leader: dict[str, str] = {}
        self._last: tuple[Tensor, str] | None = None
        self._totals: dict[str, InputStatistics] = {}
        self.seen_in_batch = 0

    def start_batch(self, windows: int) -> None:
        """Announce the next `windows` windows."""
        self._batch = windows
        self._last = None
        self.seen_in_batch = 0

    def see(self, key: str, x: Tensor) -> None:
        """Take the input `x` of linear `key`: (windows, seqlen, cols), or its first two merged."""
        self.seen_in_batch += 1
        if self._last is not None and self._last[0] is x:
            self._leader[key] = self._last[1]
            return
        self._last = (x, key)
        self._leader[key] = key
        windows = x.reshape(self._batch, -1, x.shape[-1])
        most = len(windows) if self._copies_none(x) else LARGEST_COPY // windows[0].numel()
        for piece in windows.split(max(1, most)):
            part = self._measure(piece)
            self._totals[key] = _join(self._totals[key], part) if key in self._totals else part

    def see_all(self, inputs: Mapping[str, Tensor]) -> None:
        """Take the inputs of several linears, by key, in the order of their calls."""
        for key, x in inputs.items():
            self.see(key, x)

    def _copies_none(self, x: Tensor) -> bool:
        """Whether what is asked for needs no float32 copy of `x`: a GPU's kernels convert."""
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
        """Statistics over all batches, by key."""
        return {key: self._totals[leader] for key, leader in self._leader.items()}


def _square_sums(x: Tensor) -> Tensor:
    """Σ_tokens x² in float32: (windows, tokens, cols) → (windows, cols)."""
    if x.dtype == torch.float32:
        return x.square().sum(1)
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)
    return norms.square()


def _gram(x: Tensor) -> Tensor:
    """xᵀ x in float32; a GPU multiplies halves as they are and adds up in float32."""
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(x.T, x, out_dtype=torch.float32)
    x = x.float()
    return x.T @ x


def _join(first: InputStatistics, second: InputStatistics) -> InputStatistics:
    def cat(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    gram = None
    if first.gram is not None and second.gram is not None:
        gram = first.gram + second.gram
    return InputStatistics(
        square_sums=torch.cat([first.square_sums, second.square_sums]),
        sums=cat(first.sums, second.sums),
        variances=cat(first.variances, second.variances),
        gram=gram,
    )
