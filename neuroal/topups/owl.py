"""OWL: blocks with more outliers stay denser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroal.errors import UserError
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.dense_pass import score_blocks
from neuroal.topups.schedule import plan_of_importances


@dataclass(frozen=True)
class OWL(TopUp):
    """Outlier-weighed layer-wise sparsity.

    D_b is the share, over all linears of block b together, of entries of |W|·a (rows, cols) that
    exceed M times their mean. D is scaled to [0, 2λ], centred and shifted to mean 1 − s; that is
    the density of each block. One pass through the dense model, on the search windows.

    Source: Yin et al., 2024 (arXiv 2310.05175), section 3.2. The defaults are theirs for LLaMA-7B
    at 70 %; the paper tunes M over 3, 5, 7, 10 and λ over 0.02 … 0.2, and its code takes M = 6 and
    λ = 2/8 for mixed N:8 patterns.

    Args:
        outlier_factor: M.
        spread: λ.

    Sample YAML::

        _target_: neuroal.topups.owl.OWL
        outlier_factor: 5.0
        spread: 0.08
    """

    outlier_factor: float = 5.0
    spread: float = 0.08

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.outlier_factor > 0:
            raise UserError(f"topup.outlier_factor={self.outlier_factor}: must be above 0")
        if not 0 <= self.spread < 1:
            raise UserError(f"topup.spread={self.spread}: must be at least 0 and below 1")

    def allocate(self, context: AllocationContext) -> Allocation:
        shares = score_blocks(context, self._outlier_share)
        plan = plan_of_importances(
            context.subject, shares, context.sparsity, self.spread, context.rules
        )
        return Allocation(plan, {"outlier_share": list(shares.values())})

    def _outlier_share(self, saliencies: list[Tensor]) -> float:
        numel = sum(part.numel() for part in saliencies)
        mean = sum(float(part.double().sum()) for part in saliencies) / numel
        outliers = sum(int((part > self.outlier_factor * mean).sum()) for part in saliencies)
        return outliers / numel
