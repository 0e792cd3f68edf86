"""Convert the importances of blocks to their sparsities, as block-wise allocations do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neuroal.models.adapter import DecoderModel
from neuroal.sparsity.budget import Rules
from neuroal.sparsity.plan import SparsityPlan


def densities_of_importances(
    importances: Sequence[float] | NDArray[np.float64], sparsity: float, spread: float
) -> NDArray[np.float64]:
    """Return block densities d = x − mean(x) + (1 − s), linear in the importances of the blocks.

    x are the importances scaled min–max to [0, 2λ], with λ = `spread`. The order of the float64
    operations is that of the reference code. Equal importances give equal densities.
    """
    values = np.asarray(importances, dtype=np.float64)
    extent = values.max() - values.min()
    scaled = (values - values.min()) / (extent if extent > 0 else 1.0) * spread * 2
    densities: NDArray[np.float64] = scaled - scaled.mean() + (1 - sparsity)
    return densities


def clip_blocks(ratios: NDArray[np.float64], rules: Rules) -> list[float]:
    """Return the sparsity of each block, clipped as `rules` require.

    ``reference`` replaces values ≤ 0 by 0.01 and values ≥ 1 by 0.99. ``exact`` changes nothing
    here, because the budget clips.
    """
    if rules is Rules.REFERENCE:
        ratios = np.where(ratios <= 0, 0.01, np.where(ratios >= 1, 0.99, ratios))
    return [float(ratio) for ratio in ratios]


def plan_of_blocks(
    decoder: DecoderModel, ratios: Mapping[int, float], sparsity: float
) -> SparsityPlan:
    """Return the plan that gives every linear of a block the ratio of the block."""
    return SparsityPlan({linear.key: ratios[linear.block] for linear in decoder}, sparsity)


def plan_of_importances(
    decoder: DecoderModel,
    importances: Mapping[int, float],
    sparsity: float,
    spread: float,
    rules: Rules,
) -> SparsityPlan:
    """Return the plan with the clipped `densities_of_importances`; `importances` are by block."""
    densities = densities_of_importances(list(importances.values()), sparsity, spread)
    ratios = dict(zip(importances, clip_blocks(1 - densities, rules), strict=True))
    return plan_of_blocks(decoder, ratios, sparsity)
