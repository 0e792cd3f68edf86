"""The sparsity of every row of a model in one vector, and the minibatches it is fitted on."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.models.adapter import DecoderModel
from neuroal.plan import Ratio, SparsityPlan
from neuroal.pruners.budget import check_coverage, total_zeros

LOWEST, HIGHEST = 0.02, 0.99
"""Bounds of a row's sparsity on the way; the plan goes through the budget like any other."""
LARGEST_STEP = 3.0
"""In standard deviations of the costs."""
SHIFTS = 5


@dataclass(eq=False)
class Rows:
    """The sparsity of every row of the model in one vector.

    Attributes:
        shapes: (rows, cols) of each linear, by key.
        cols: columns of each row, float64.
        sparsity: of each row, float64.
        zeros: the budget K.
    """

    shapes: Mapping[str, tuple[int, int]]
    cols: Tensor
    sparsity: Tensor
    zeros: int

    @classmethod
    def of(cls, subject: DecoderModel, plan: SparsityPlan) -> Rows:
        shapes = {linear.key: (linear.rows, linear.cols) for linear in subject}
        check_coverage(plan, shapes)
        cols = [torch.full((rows,), cols, dtype=torch.float64) for rows, cols in shapes.values()]
        ratios = [
            torch.as_tensor(plan.ratios[key], dtype=torch.float64).expand(rows)
            for key, (rows, _) in shapes.items()
        ]
        zeros = total_zeros(plan.sparsity, subject.numel)
        return cls(shapes, torch.cat(cols), torch.cat(ratios), zeros)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """A value for each row of the model as one vector a linear."""
        parts = values.split([rows for rows, _ in self.shapes.values()])
        return dict(zip(self.shapes, parts, strict=True))

    def counts(self) -> dict[str, Tensor]:
        """k_r = round(s_r·cols)."""
        return self.split((self.sparsity * self.cols).round().long())

    def joined(self, costs: Mapping[str, Tensor], by_row: bool) -> Tensor:
        """Costs of all rows; those of a linear are its rows' mean unless `by_row`."""
        flat = torch.cat([costs[key] for key in self.shapes]).double().cpu()
        if by_row:
            return flat
        return torch.cat([part.mean().expand(len(part)) for part in self.split(flat).values()])

    def standardised(self, costs: Tensor) -> tuple[Tensor, float]:
        """z over all rows, weighted by their columns, and standard deviation ÷ |mean|."""
        weights = self.cols / self.cols.sum()
        mean = (weights * costs).sum()
        deviation = (weights * (costs - mean).square()).sum().sqrt()
        spread = float(deviation / mean.abs()) if float(mean) else math.inf
        if float(deviation) == 0:
            return torch.zeros_like(costs), 0.0
        return ((costs - mean) / deviation).clamp(-LARGEST_STEP, LARGEST_STEP), spread

    def move(self, change: Tensor) -> None:
        """Add `change` within bounds, then shift all sparsities back to the budget."""
        self.sparsity = (self.sparsity + change).clamp(LOWEST, HIGHEST)
        for _ in range(SHIFTS):
            lacking = (self.zeros - (self.sparsity * self.cols).sum()) / self.cols.sum()
            self.sparsity = (self.sparsity + lacking).clamp(LOWEST, HIGHEST)

    def plan(self, sparsity: float, by_row: bool) -> SparsityPlan:
        """One ratio a row, or one a linear."""
        ratios: dict[str, Ratio] = {
            key: part.clone() if by_row else float(part.mean())
            for key, part in self.split(self.sparsity).items()
        }
        return SparsityPlan(ratios, sparsity)


def shuffled(windows: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Minibatches of window indices, for ever: shuffled passes, one after the other."""
    generator = random.Random(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(batch, windows):
            order = list(range(windows))
            generator.shuffle(order)
            waiting += order
        yield waiting[: min(batch, windows)]
        waiting = waiting[min(batch, windows) :]
