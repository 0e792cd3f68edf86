"""OWL: keep blocks with more outliers denser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroal.errors import UserError
from neuroal.search.dense_pass import mean_of, score_blocks
from neuroal.sparsity.schedule import plan_of_importances
from neuroal.topups.base import Allocation, AllocationContext, TopUp


@dataclass(frozen=True)
class OWL(TopUp):
    """Outlier-weighed layer-wise sparsity.

    The outlier ratio D_b is the share of the entries |W_rc|·a_c of block b that exceed M times
    their mean over the block. The density is d_b = x_b − mean(x) + (1 − s), with x the outlier
    ratios scaled min–max to [0, 2λ]. The statistics come from one pass through the dense model on
    the search windows.

    Source: Yin et al., 2024 (arXiv 2310.05175), section 3.2. The defaults are the authors' for
    LLaMA-7B at 70 %. The paper tunes M over 3, 5, 7, 10 and λ over 0.02 … 0.2; the authors' code
    uses M = 6 and λ = 2/8 for mixed N:8 patterns.

    Args:
        outlier_factor: M.
        spread: λ.
    """

    outlier_factor: float = 5.0
    spread: float = 0.08

    searches: ClassVar[bool] = True
    shares_windows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.outlier_factor > 0:
            raise UserError(f"topup.outlier_factor={self.outlier_factor}: must be above 0")
        if not 0 <= self.spread < 1:
            raise UserError(f"topup.spread={self.spread}: must be at least 0 and below 1")

    def allocate(self, context: AllocationContext) -> Allocation:
        shares = score_blocks(context, self._outlier_share)
        plan = plan_of_importances(
            context.decoder, shares, context.settings.sparsity, self.spread, context.settings.rules
        )
        return Allocation(plan, {"outlier_share": list(shares.values())})

    def _outlier_share(self, saliencies: list[Tensor]) -> float:
        threshold = self.outlier_factor * mean_of(saliencies)
        outliers = sum(int((part > threshold).sum()) for part in saliencies)
        return outliers / sum(part.numel() for part in saliencies)
