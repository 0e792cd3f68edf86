"""The sparsity of every row of a model as one vector, and minibatches of windows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.models.adapter import DecoderModel
from neuroal.sparsity.budget import check_coverage, total_zeros
from neuroal.sparsity.plan import Ratio, SparsityPlan

LOWEST, HIGHEST = 0.02, 0.99
"""Bounds of a row's sparsity during the iterations; the budget clips the final plan."""
LARGEST_STEP = 3.0
"""Bound of standardised costs, in standard deviations."""
SHIFTS = 5
"""Repetitions of the shift to the budget, because each one clips some rows again."""


@dataclass(eq=False)
class RowSparsity:
    """The sparsity of all R rows of the model as one vector, on the device of the decoder.

    Attributes:
        shapes: (rows, cols) of each linear, by key.
        cols: number of columns of each row, (R,) float64.
        sparsity: sparsity of each row, (R,) float64.
        zeros: the budget K.
    """

    shapes: Mapping[str, tuple[int, int]]
    cols: Tensor
    sparsity: Tensor
    zeros: int

    @classmethod
    def of(cls, decoder: DecoderModel, plan: SparsityPlan) -> RowSparsity:
        """Return the row sparsities of `plan`."""
        shapes = {linear.key: (linear.rows, linear.cols) for linear in decoder}
        check_coverage(plan, shapes)
        cols = [torch.full((rows,), cols, dtype=torch.float64) for rows, cols in shapes.values()]
        ratios = [
            torch.as_tensor(plan.ratios[key], dtype=torch.float64).expand(rows)
            for key, (rows, _) in shapes.items()
        ]
        zeros = total_zeros(plan.sparsity, decoder.numel)
        joined = torch.cat(cols).to(decoder.device), torch.cat(ratios).to(decoder.device)
        return cls(shapes, *joined, zeros)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Return `values` (R,) as one vector (rows,) per linear, by key."""
        parts = values.split([rows for rows, _ in self.shapes.values()])
        return dict(zip(self.shapes, parts, strict=True))

    def counts(self) -> dict[str, Tensor]:
        """Return the zeros of each row, k_r = round(s_r·cols), by linear."""
        return self.split((self.sparsity * self.cols).round().long())

    def joined(self, costs: Mapping[str, Tensor], by_row: bool) -> Tensor:
        """Return the costs of all rows (R,); unless `by_row`, rows get the mean of their linear."""
        flat = torch.cat([costs[key] for key in self.shapes]).double().to(self.cols.device)
        if by_row:
            return flat
        return torch.cat([part.mean().expand(len(part)) for part in self.split(flat).values()])

    def standardised(self, costs: Tensor) -> tuple[Tensor, float]:
        """Return z = (cost − mean)/deviation, clipped to ±3, and the variation of the costs.

        Mean and standard deviation are over all rows, weighted by their columns. The variation is
        the standard deviation divided by |mean|.
        """
        weights = self.cols / self.cols.sum()
        mean = (weights * costs).sum()
        deviation = (weights * (costs - mean).square()).sum().sqrt()
        variation = float(deviation / mean.abs()) if float(mean) else math.inf
        if float(deviation) == 0:
            return torch.zeros_like(costs), 0.0
        return ((costs - mean) / deviation).clamp(-LARGEST_STEP, LARGEST_STEP), variation

    def move(self, change: Tensor) -> None:
        """Add `change` (R,), then shift all sparsities to meet the budget, within the bounds."""
        self.sparsity = (self.sparsity + change).clamp(LOWEST, HIGHEST)
        for _ in range(SHIFTS):
            shift = (self.zeros - (self.sparsity * self.cols).sum()) / self.cols.sum()
            self.sparsity = (self.sparsity + shift).clamp(LOWEST, HIGHEST)

    def plan(self, sparsity: float, by_row: bool) -> SparsityPlan:
        """Return a plan with one ratio per row, or one per linear, for a budget of `sparsity`."""
        ratios: dict[str, Ratio] = {
            key: part.clone() if by_row else float(part.mean())
            for key, part in self.split(self.sparsity.cpu()).items()
        }
        return SparsityPlan(ratios, sparsity)


def shuffled(windows: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Yield minibatches of window indices from an endless sequence of shuffled passes."""
    generator = random.Random(seed)
    remaining: list[int] = []
    while True:
        while len(remaining) < min(batch, windows):
            order = list(range(windows))
            generator.shuffle(order)
            remaining += order
        yield remaining[: min(batch, windows)]
        remaining = remaining[min(batch, windows) :]


def duration(seconds: float) -> str:
    """Return a duration as text: ``42 s`` or ``3 min``."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
