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

from neuroal.kernels.square_sums import square_sums

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

    Statistics that were not requested are None. An input that does not hold every token once, such
    as that of an expert, has no windows: its sums are distributed evenly over the windows, and its
    variance is that over all of its tokens.

    Attributes:
        square_sums: Σ_tokens x_j² per window: (windows, cols).
        sums: Σ_tokens x_j per window: (windows, cols).
        variances: biased variance of x_j over the tokens of each window: (windows, cols).
        gram: Σ x xᵀ over all tokens: (cols, cols).
        tokens: number of tokens of an input that does not hold every token once; None: it does.
        filled: whether evenly distributed tokens were added to too few of them.
        readers: number of linears that read the input.
        memo: results of `once`.
    """

    square_sums: Tensor
    sums: Tensor | None = None
    variances: Tensor | None = None
    gram: Tensor | None = None
    tokens: int | None = None
    filled: bool = False
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


@dataclass(frozen=True, eq=False)
class TokenSums:
    """Sums over tokens that belong to no window, which several devices may add.

    Attributes:
        tokens: number of tokens.
        squares: Σ x_j², (cols,).
        sums: Σ x_j, (cols,); None: not needed.
        gram: Σ x xᵀ, (cols, cols) float32; None: not needed.
    """

    tokens: int
    squares: Tensor
    sums: Tensor | None
    gram: Tensor | None

    def statistics(self, needs: frozenset[Need], windows: int, readers: int) -> InputStatistics:
        """Return statistics whose sums are distributed evenly over `windows` windows."""

        def even(values: Tensor) -> Tensor:
            return (values / windows).float().expand(windows, -1)

        sums = variances = None
        if self.sums is not None and Need.SUM in needs:
            sums = even(self.sums)
        if self.sums is not None and Need.VARIANCE in needs:
            mean = self.sums.double() / self.tokens
            variance = (self.squares.double() / self.tokens - mean.square()).clamp(min=0)
            variances = variance.float().expand(windows, -1)
        return InputStatistics(
            even(self.squares), sums, variances, self.gram, self.tokens, readers=readers
        )


class StatisticsCollector:
    """Accumulates `InputStatistics` of several linears over batches of windows.

    Consecutive linears with the same input tensor (q, k and v; gate and up) share its statistics.
    Windows are measured one by one and in order, because a sum over the windows of a batch rounds
    as the size of the batch requires. Only inputs without windows are summed by batch.
    """

    def __init__(self, needs: frozenset[Need]) -> None:
        self._needs = needs
        self._batch = self._tokens = self.windows = 0
        self._leader: dict[str, str] = {}
        self._last: tuple[Tensor, str] | None = None
        self._totals: dict[str, _Totals] = {}
        self._called: set[str] = set()
        self.seen_in_batch = 0

    def start_batch(self, windows: int, seqlen: int) -> None:
        self._batch, self._tokens = windows, windows * seqlen
        self.windows += windows
        self._last = None
        self._called.clear()
        self.seen_in_batch = 0

    def see(self, key: str, x: Tensor) -> None:
        """Add the input of a linear: any shape (…, cols), such as (windows, seqlen, cols)."""
        self.seen_in_batch += 1
        if self._last is not None and self._last[0] is x:
            self._leader[key] = self._last[1]
            return
        self._last = (x, key)
        self._leader[key] = key
        totals = self._totals.setdefault(key, _Totals(self._needs))
        if self._by_window(key, x):
            totals.add(x.reshape(self._batch, -1, x.shape[-1]).contiguous())
        elif x.numel():
            totals.add_any(x.reshape(-1, x.shape[-1]).contiguous())

    def _by_window(self, key: str, x: Tensor) -> bool:
        """Return whether x is the first input of `key` in this batch and holds all windows."""
        first = key not in self._called
        self._called.add(key)
        windows_first = x.dim() > 2 and len(x) == self._batch
        return first and (windows_first or x.shape[:-1].numel() == self._tokens)

    def is_regular(self, key: str) -> bool:
        """Return whether the inputs of a linear hold every token once, in windows."""
        leader = self._leader.get(key)
        return leader is not None and self._totals[leader].is_regular(self.windows)

    def token_sums(self, key: str) -> TokenSums | None:
        """Return the sums over all tokens of a linear, in windows or not; None without tokens."""
        leader = self._leader.get(key)
        return None if leader is None else self._totals[leader].token_sums()

    def finish(self) -> dict[str, InputStatistics]:
        """Return the statistics over all batches, by key of the linear."""
        readers = Counter(self._leader.values())
        by_leader = {
            leader: totals.statistics(self.windows, readers[leader])
            for leader, totals in self._totals.items()
        }
        statistics = {key: by_leader[leader] for key, leader in self._leader.items()}
        return {key: inputs for key, inputs in statistics.items() if inputs is not None}


class _Totals:
    """Statistics of one input, accumulated over windows or over any tokens."""

    def __init__(self, needs: frozenset[Need]) -> None:
        self._needs = needs
        self._by_window: dict[str, list[Tensor]] = {}
        self._gram: Tensor | None = None
        self._window_tokens: list[int] = []
        self._others: list[tuple[int, Tensor, Tensor | None]] = []
        """Number of tokens that belong to no window, Σ x² and, if needed, Σ x: (1, cols)."""

    def add(self, x: Tensor) -> None:
        """Add windows x: (windows, tokens, cols), contiguous."""
        self._append("square_sums", square_sums(x))
        for window in x:
            self._window_tokens.append(len(window))
            if Need.GRAM in self._needs:
                self._gram = _plus_gram(self._gram, window)
        if self._needs & {Need.SUM, Need.VARIANCE}:
            self._append("sums", torch.stack([_sums(window) for window in x]))
        if Need.VARIANCE in self._needs:
            variances = [window.float().var(0, correction=0) for window in x]
            self._append("variances", torch.stack(variances))

    def add_any(self, x: Tensor) -> None:
        """Add x (tokens, cols), contiguous, whose tokens belong to no window."""
        if Need.GRAM in self._needs:
            self._gram = _plus_gram(self._gram, x)
        sums = _sums(x)[None] if self._needs & {Need.SUM, Need.VARIANCE} else None
        self._others.append((len(x), square_sums(x[None]), sums))

    def _append(self, name: str, values: Tensor) -> None:
        self._by_window.setdefault(name, []).append(values)

    def is_regular(self, windows: int) -> bool:
        """Return whether every token of `windows` windows was seen once."""
        return not self._others and len(self._window_tokens) == windows

    def statistics(self, windows: int, readers: int) -> InputStatistics | None:
        """Return statistics of the tokens so far, read by `readers` linears; None without tokens.

        They come from `windows` windows.
        """
        if not self.is_regular(windows):
            sums = self.token_sums()
            return None if sums is None else sums.statistics(self._needs, windows, readers)
        by_window: dict[str, Any] = {
            name: torch.cat(values) for name, values in self._by_window.items()
        }
        if Need.SUM not in self._needs:
            by_window.pop("sums", None)
        return InputStatistics(**by_window, gram=self._gram, readers=readers)

    def token_sums(self) -> TokenSums | None:
        """Return the sums over all tokens so far; None without tokens."""
        tokens = sum(self._window_tokens) + sum(count for count, _, _ in self._others)
        if not tokens:
            return None
        squares = [*self._by_window.get("square_sums", ()), *(part for _, part, _ in self._others)]
        sums = [
            *self._by_window.get("sums", ()),
            *(part for _, _, part in self._others if part is not None),
        ]
        return TokenSums(tokens, _total(squares), _total(sums) if sums else None, self._gram)


def _total(parts: list[Tensor]) -> Tensor:
    """Return the sum of all rows of `parts` (…, cols) float32, in float64 if there are several."""
    rows = torch.cat(parts)
    return rows[0] if len(rows) == 1 else rows.double().sum(0)


def _sums(x: Tensor) -> Tensor:
    """Sum x over tokens in float32: (tokens, cols) → (cols,)."""
    # A GPU converts while it adds; a CPU adds in another order then.
    return x.sum(0, dtype=torch.float32) if x.is_cuda else x.float().sum(0)


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
