"""DLP: prune blocks more if their median saliency is higher relative to other blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError, check_choice
from neuroal.search.dense_pass import mean_of, score_blocks
from neuroal.sparsity.schedule import plan_of_importances
from neuroal.topups.base import Allocation, AllocationContext, TopUp


def median_of(saliencies: list[Tensor]) -> float:
    """Return the median over all entries; for an even number, the lower of the middle two."""
    return float(torch.cat([part.flatten() for part in saliencies]).median())


AVERAGES: dict[str, Callable[[list[Tensor]], float]] = {"median": median_of, "mean": mean_of}


@dataclass(frozen=True)
class DLP(TopUp):
    """Dynamic layer-wise pruning.

    m_b is the median over all entries |W_rc|·a_c of block b, and the importance of the block is
    I_b = 1 − m_b / Σ m. Its density is d_b = x_b − mean(x) + (1 − s), with x the importances scaled
    min–max to [0, 2α]. The statistics come from one pass through the dense model on the search
    windows.

    Source: Chen et al., 2025 (arXiv 2505.23807), section 3, which uses the median. The public code
    uses the mean.

    Args:
        spread: α.
        average: ``median`` (the paper) or ``mean`` (the authors' code).
    """

    spread: float = 0.15
    average: str = "median"

    searches: ClassVar[bool] = True
    shares_windows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.spread < 1:
            raise UserError(f"topup.spread={self.spread}: must be at least 0 and below 1")
        check_choice("topup.average", self.average, AVERAGES)

    def allocate(self, context: AllocationContext) -> Allocation:
        settings = context.settings
        averages = score_blocks(context, AVERAGES[self.average])
        total = sum(averages.values())
        importances = {block: 1 - value / (total or 1.0) for block, value in averages.items()}
        plan = plan_of_importances(
            context.decoder, importances, settings.sparsity, self.spread, settings.rules
        )
        return Allocation(plan, {f"{self.average}_saliency": list(averages.values())})
