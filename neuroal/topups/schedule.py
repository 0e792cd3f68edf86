"""From one importance a block to one sparsity a block: what all block top-ups share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.budget import Rules


def spread_densities(
    importances: Sequence[float] | NDArray[np.float64], sparsity: float, spread: float
) -> NDArray[np.float64]:
    """Densities with mean 1 − s, linear in the importances, from end to end 2·`spread` apart.

    Min–max to [0, 2λ], minus the mean, plus (1 − s), all in float64 and in the reference's order
    of operations. Equal importances give equal densities.
    """
    values = np.asarray(importances, dtype=np.float64)
    span = values.max() - values.min()
    scaled = (values - values.min()) / (span if span > 0 else 1.0) * spread * 2
    densities: NDArray[np.float64] = scaled - scaled.mean() + (1 - sparsity)
    return densities


def clip_blocks(ratios: NDArray[np.float64], rules: Rules) -> list[float]:
    """Sparsity of each block, within bounds.

    The reference moves the extreme values (≤ 0, ≥ 1) to 0.01 and 0.99, and leaves those between;
    ``exact`` leaves all of them to the budget.
    """
    if rules is Rules.REFERENCE:
        ratios = np.where(ratios <= 0, 0.01, np.where(ratios >= 1, 0.99, ratios))
    return [float(ratio) for ratio in ratios]


def plan_of_blocks(
    subject: DecoderModel, ratios: Mapping[int, float], sparsity: float
) -> SparsityPlan:
    """Every linear of a block gets the block's ratio."""
    return SparsityPlan({linear.key: ratios[linear.block] for linear in subject}, sparsity)


def plan_of_importances(
    subject: DecoderModel,
    importances: Mapping[int, float],
    sparsity: float,
    spread: float,
    rules: Rules,
) -> SparsityPlan:
    """Blocks of greater importance are kept denser: `spread_densities`, then `clip_blocks`."""
    densities = spread_densities(list(importances.values()), sparsity, spread)
    ratios = dict(zip(importances, clip_blocks(1 - densities, rules), strict=True))
    return plan_of_blocks(subject, ratios, sparsity)
