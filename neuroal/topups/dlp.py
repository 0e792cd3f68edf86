"""DLP: blocks whose typical weight matters less are pruned more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError, check_choice
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.dense_pass import score_blocks
from neuroal.topups.schedule import plan_of_importances


def median_of(saliencies: list[Tensor]) -> float:
    """Median of all entries together; of an even number, the lower of the middle two."""
    return float(torch.cat([part.flatten() for part in saliencies]).median())


def mean_of(saliencies: list[Tensor]) -> float:
    """Mean of all entries together."""
    total = sum(float(part.double().sum()) for part in saliencies)
    return total / sum(part.numel() for part in saliencies)


AVERAGES: dict[str, Callable[[list[Tensor]], float]] = {"median": median_of, "mean": mean_of}


@dataclass(frozen=True)
class DLP(TopUp):
    """Dynamic layer-wise pruning.

    m_b is the median of all entries of |W|·a (rows, cols) of block b; the importance of the block
    is 1 − m_b / Σ m. It is scaled to [0, 2α], centred and shifted to mean 1 − s; that is the
    density of each block. One pass through the dense model, on the search windows.

    Source: Chen et al., 2025 (arXiv 2505.23807), section 3, which takes the median. The ratio
    function of its public code takes the mean instead; both are here.

    Args:
        spread: α.
        average: ``median`` (the paper) or ``mean`` (its code).

    Sample YAML::

        _target_: neuroal.topups.dlp.DLP
        spread: 0.15
        average: median
    """

    spread: float = 0.15
    average: str = "median"

    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.spread < 1:
            raise UserError(f"topup.spread={self.spread}: must be at least 0 and below 1")
        check_choice("topup.average", self.average, AVERAGES)

    def allocate(self, context: AllocationContext) -> Allocation:
        averages = score_blocks(context, AVERAGES[self.average])
        total = sum(averages.values())
        importances = {block: 1 - value / (total or 1.0) for block, value in averages.items()}
        plan = plan_of_importances(
            context.subject, importances, context.sparsity, self.spread, context.rules
        )
        return Allocation(plan, {f"{self.average}_saliency": list(averages.values())})
