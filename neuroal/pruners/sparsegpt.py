"""SparseGPT: prune column by column and let the columns to come make up for the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.pruners.base import PrunedWeight, Pruner, lowest, measured
from neuroal.pruners.budget import Allotment, Rules
from neuroal.pruners.masks import lowest_overall, lowest_per_row
from neuroal.pruners.patterns import Pattern
from neuroal.statistics import InputStatistics, Need

_factors: WeakKeyDictionary[InputStatistics, tuple[float, tuple[Tensor, Tensor]]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True)
class SparseGPT(Pruner):
    """Optimal-brain-surgeon pruning with H = (2/N)·Σ x xᵀ over N windows.

    In each block of `block_size` columns the weights with the lowest w²/d² go (d: diagonal of the
    upper Cholesky factor of H⁻¹); the error is fed forward into the columns that follow. Under an
    N:M pattern each group is chosen when its turn comes. Inputs that are always zero get diagonal
    1 and their weights 0.

    Args:
        block_size: columns masked at once.
        damping: share of the mean diagonal of H that is added to its diagonal.

    Source: Frantar & Alistarh, 2023 (arXiv 2301.00774), algorithm 1.
    """

    block_size: int = 128
    damping: float = 0.01

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM, Need.GRAM})
    updates_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise UserError(f"pruner.block_size={self.block_size}: must be at least 1")
        if not self.damping > 0:
            raise UserError(f"pruner.damping={self.damping}: must be above 0")

    def input_norm(self, statistics: InputStatistics, *, reference: bool) -> Tensor:
        return statistics.harmonic_norm if reference else statistics.norm

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> PrunedWeight:
        factor, dead = self._factor(measured(statistics))
        updated = weight.float().clone()
        updated[:, dead] = 0
        mask = torch.zeros_like(updated, dtype=torch.bool)
        cols, width = weight.shape[1], self._width(allotment.pattern)
        for begin in range(0, cols, width):
            end = min(begin + width, cols)
            self._prune_columns(updated, mask, factor, allotment, begin, end)
        return PrunedWeight(updated.to(weight.dtype), mask)

    def initial_mask(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> Tensor:
        """The lowest w²/d² of every row; dead inputs first."""
        factor, dead = self._factor(measured(statistics))
        saliency = weight.float().masked_fill(dead, 0).square() / factor.diagonal().square()
        return lowest(saliency, allotment)

    def _width(self, pattern: Pattern | None) -> int:
        """`block_size`, made a multiple of the pattern's group."""
        if pattern is None:
            return self.block_size
        return max(self.block_size // pattern.of, 1) * pattern.of

    def _factor(self, statistics: InputStatistics) -> tuple[Tensor, Tensor]:
        """`inverse_factor`, once for linears that read the same input (q, k and v)."""
        known = _factors.get(statistics)
        if known is None or known[0] != self.damping:
            known = (self.damping, self.inverse_factor(statistics))
            _factors.clear()  # they are large, and linears that share one follow each other
            _factors[statistics] = known
        return known[1]

    def inverse_factor(self, statistics: InputStatistics) -> tuple[Tensor, Tensor]:
        """Upper Cholesky factor of the damped H⁻¹ (cols, cols), and which inputs are dead (cols,).

        Raises:
            UserError: H stays singular although damped.
        """
        if statistics.gram is None:
            raise ValueError("SparseGPT needs the Gram matrix")
        hessian = statistics.gram * (2.0 / statistics.windows)
        diagonal = hessian.diagonal()
        dead = diagonal == 0
        diagonal[dead] = 1
        diagonal += self.damping * diagonal.mean()
        try:
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
            return torch.linalg.cholesky(inverse, upper=True), dead
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise UserError(
                f"pruner.damping={self.damping}: the Hessian is not positive definite; "
                "raise it, or calibration.windows"
            ) from error

    def _prune_columns(
        self,
        weight: Tensor,
        mask: Tensor,
        factor: Tensor,
        allotment: Allotment,
        begin: int,
        end: int,
    ) -> None:
        """Prune columns [begin, end) of `weight` in place and feed the error forward."""
        block, triangle = weight[:, begin:end].clone(), factor[begin:end, begin:end]
        scale = triangle.diagonal().square()
        pattern = allotment.pattern
        if pattern is None:
            saliency = block.square() / scale
            chosen = _block_mask(saliency, allotment, begin, end, weight.shape[1])
        else:
            chosen = torch.zeros_like(block, dtype=torch.bool)
        errors = torch.zeros_like(block)
        for column in range(end - begin):
            if pattern is not None and column % pattern.of == 0:
                group = slice(column, column + pattern.of)  # chosen on updated weights
                chosen[:, group] = pattern.lowest(block[:, group].square() / scale[group])
            kept = block[:, column].masked_fill(chosen[:, column], 0)
            errors[:, column] = (block[:, column] - kept) / triangle[column, column]
            block[:, column:] -= errors[:, column, None] * triangle[None, column, column:]
            block[:, column] = kept
        weight[:, begin:end] = block
        mask[:, begin:end] = chosen
        weight[:, end:] -= errors @ factor[begin:end, end:]


def _block_mask(saliency: Tensor, allotment: Allotment, begin: int, end: int, cols: int) -> Tensor:
    """Which entries of the columns [begin, end) go; the budget is spread over the columns."""
    if allotment.rules is Rules.REFERENCE:
        if isinstance(allotment.ratio, Tensor):
            raise UserError("pruner=sparsegpt has no row plans under rules=reference")
        threshold = saliency.flatten().sort().values[int(allotment.ratio * saliency.numel())]
        return saliency <= threshold
    if isinstance(allotment.ratio, Tensor):
        return lowest_per_row(saliency, _share(allotment.counts, begin, end, cols))
    return lowest_overall(saliency, int(_share(allotment.counts.sum(), begin, end, cols)))


def _share(zeros: Tensor, begin: int, end: int, cols: int) -> Tensor:
    """Of `zeros` in all columns, those in [begin, end): round(k·end/cols) − round(k·begin/cols)."""
    rounded = [(2 * zeros * edge + cols) // (2 * cols) for edge in (begin, end)]
    return rounded[1] - rounded[0]
