"""SparseGPT: prune column by column and compensate for the error in the following columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.kernels.column_blocks import (
    eliminate,
    eliminate_groups,
    lowest_overall,
    subtract_product,
)
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.kernels.selection import lowest_per_row
from neuroal.pruners.base import PrunedWeight, Pruner, lowest, measured
from neuroal.pruners.faults import hessian_fault
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.sparsity.patterns import Pattern

OPERATIONS = 80
"""Operations per weight and column that take as long as the updates, most of which are small."""


@dataclass(frozen=True)
class SparseGPT(Pruner):
    """Prune by optimal brain surgeon with the Hessian H = (2/N)·Σ x xᵀ over N windows.

    The score of a weight is w²/d², with d the diagonal of the upper Cholesky factor of H⁻¹. The
    lowest scores of each block of `block_size` columns are pruned, and the error of each column
    updates the columns after it. Under an N:M pattern, each group is scored after the updates from
    all earlier columns. Inputs that are always zero get the diagonal entry 1, and their weights
    are zeroed.

    Args:
        block_size: number of columns that are masked together.
        damping: the share of the mean diagonal of H that is added to the diagonal.

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

    def operations_per_weight(self, cols: float) -> float:
        return OPERATIONS * cols

    def input_norm(self, statistics: InputStatistics, *, reference: bool) -> Tensor:
        return statistics.harmonic_norm if reference else statistics.norm

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        return self._prune(weight, statistics, budget, None)

    def prune_to(
        self,
        weight: Tensor,
        statistics: InputStatistics | None,
        budget: LinearBudget,
        mask: Tensor,
    ) -> PrunedWeight:
        return self._prune(weight, statistics, budget, mask)

    def _prune(
        self,
        weight: Tensor,
        statistics: InputStatistics | None,
        budget: LinearBudget,
        target: Tensor | None,
    ) -> PrunedWeight:
        factor, dead = self._factor(measured(statistics))
        # Contiguous, as the GPU kernels read rows; the weight may be a transposed view.
        updated = weight.float().clone(memory_format=torch.contiguous_format)
        updated[:, dead] = 0
        elimination = _Elimination(updated, factor, budget, target)
        cols, width = weight.shape[1], self._width(budget.pattern)
        for begin in range(0, cols, width):
            elimination.prune_columns(begin, min(begin + width, cols))
        mask, differing = elimination.mask, elimination.differing
        return PrunedWeight(updated.to(weight.dtype), mask, differing=differing)

    def meets(self, mask: Tensor, budget: LinearBudget) -> Tensor:
        """Return whether `mask` has the zeros of `budget`.

        Under ``rules=reference`` each column block has at least ⌊s·numel⌋ + 1 zeros, as the mask
        contains the entry at the threshold and all ties with it.
        """
        if budget.rules is not Rules.REFERENCE or budget.pattern is not None:
            return super().meets(mask, budget)
        blocks = mask.split(self.block_size, dim=1)
        zeros = torch.stack([block.sum() for block in blocks])
        least = [_position(budget, block.numel()) + 1 for block in blocks]
        return (zeros >= torch.tensor(least).to(zeros.device, non_blocking=True)).all()

    def initial_mask(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> Tensor:
        """Return the mask of the lowest w²/d² of every row, with always-zero inputs first."""
        factor, dead = self._factor(measured(statistics))
        saliency = weight.float().masked_fill(dead, 0).square() / factor.diagonal().square()
        return lowest(saliency, budget)

    def _width(self, pattern: Pattern | None) -> int:
        """Return `block_size`, rounded down to whole groups of the pattern but at least one."""
        if pattern is None:
            return self.block_size
        return max(self.block_size // pattern.of, 1) * pattern.of

    def _factor(self, statistics: InputStatistics) -> tuple[Tensor, Tensor]:
        """Return `inverse_factor`, computed once for linears that read the same input."""
        return statistics.once(f"factor {self.damping}", lambda: self.inverse_factor(statistics))

    def inverse_factor(self, statistics: InputStatistics) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor (cols, cols) of the damped H⁻¹, and the always-zero inputs.

        Raises:
            MethodFault: H is not finite, or damped H is not positive definite.
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
            # The GPU kernels read rows of the factor, which comes column by column.
            return torch.linalg.cholesky(inverse, upper=True).contiguous(), dead
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise hessian_fault(self.setting, self.damping, hessian) from error


class _Elimination:
    """Pruning of one weight column by column, with updates of the columns that follow.

    Args:
        weight: (rows, cols) float32; changed in place.
        factor: Cholesky factor (cols, cols) of the inverse Hessian.
        budget: zeros of the weight.
        target: prescribed mask (rows, cols); None: the lowest scores are pruned.

    Attributes:
        mask: entries pruned so far, (rows, cols) bool.
        differing: entries of `target` so far that the scores would choose differently, () int64;
            None without a target.
    """

    def __init__(
        self, weight: Tensor, factor: Tensor, budget: LinearBudget, target: Tensor | None
    ) -> None:
        self._weight, self._factor, self._budget = weight, factor, budget
        self._target = target
        # One number for the whole linear is read once, as reading it synchronises a GPU.
        by_row = isinstance(budget.ratio, Tensor)
        self._zeros = budget.counts if by_row else int(budget.counts.sum())
        self.mask = torch.zeros_like(weight, dtype=torch.bool)
        self.differing = None if target is None else torch.zeros((), device=weight.device).long()

    def prune_columns(self, begin: int, end: int) -> None:
        """Prune columns [begin, end) and update the columns after them."""
        weight, pattern = self._weight, self._budget.pattern
        block, triangle = weight[:, begin:end], self._factor[begin:end, begin:end]
        target = None if self._target is None else self._target[:, begin:end]
        if pattern is None:
            saliency = block.square() / triangle.diagonal().square()
            free = self._lowest(saliency, begin, end)
            errors = eliminate(block, triangle, free if target is None else target)
        else:
            errors, free = eliminate_groups(block, triangle, pattern.groups(end - begin), target)
        if target is not None and self.differing is not None:
            self.differing += (target != free).sum()
        self.mask[:, begin:end] = free if target is None else target
        subtract_product(weight[:, end:], errors, self._factor[begin:end, end:])

    def _lowest(self, saliency: Tensor, begin: int, end: int) -> Tensor:
        """Return the mask of columns [begin, end), which get their share of the zeros."""
        if self._budget.rules is Rules.REFERENCE:
            # `PruningSettings.check_row_ratios` has rejected ratios per row.
            position = _position(self._budget, saliency.numel())
            return lowest_overall(saliency, position + 1, all_ties=True)
        cols = self._weight.shape[1]
        if isinstance(self._zeros, Tensor):
            return lowest_per_row(saliency, _share(self._zeros, begin, end, cols))
        return lowest_overall(saliency, _share(self._zeros, begin, end, cols))


def _position(budget: LinearBudget, numel: int) -> int:
    """Return the position of the reference's threshold among `numel` ascending scores."""
    return int(float(budget.ratio) * numel)


Zeros = TypeVar("Zeros", int, Tensor)


def _share(zeros: Zeros, begin: int, end: int, cols: int) -> Zeros:
    """Return the zeros in columns [begin, end): round(k·end/cols) − round(k·begin/cols)."""
    first = (2 * zeros * begin + cols) // (2 * cols)
    return (2 * zeros * end + cols) // (2 * cols) - first
