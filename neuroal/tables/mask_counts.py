"""Check that the masks of a record prune as many weights as its budget says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuroal.config.schema import Rules
from neuroal.records.schema import Record

EXACT = 5e-4
"""Rounding of the exact total: half a weight of a model with 1000 prunable weights."""
REFERENCE = 0.1
"""Drift of the reference's roundings, and of its clipping to [0.01, 0.99] at high sparsities."""
REMAINDER = 0.02
"""Share by which the last, incomplete groups of an N:M pattern may change the total."""


def wrong_count(record: Record) -> str | None:
    """Return what is wrong with the mask counts of `record`, which contradict its budget, or None.

    A record holds the share of pruned entries, overall and of each linear, but no shapes. The exact
    budget, round(s·weights), is therefore compared with the ratio s to within `EXACT`.
    """
    overall, linears = float(record.sparsity["overall"]), record.sparsity["linears"]
    shares = [float(share) for share in linears.values()]
    for share in (overall, *shares):
        if not 0 <= share <= 1:
            return f"{share:g} is not a share of pruned weights"
    if shares and not min(shares) - 1e-9 <= overall <= max(shares) + 1e-9:
        return f"a share of {overall:.4f} pruned weights is not the mean of its linears"
    ratio = float(record.config["sparsity"]["ratio"])
    lower, upper = _tolerances(record.config, linears)
    if ratio - lower <= overall <= ratio + upper:
        return None
    return (
        f"its masks prune {overall:.4f} of the weights, but sparsity.ratio={ratio:g} with "
        f"rules={record.config['rules']}"
    )


def _tolerances(config: Mapping[str, Any], linears: Mapping[str, float]) -> tuple[float, float]:
    """Return how far the share of pruned weights may be below and above the ratio."""
    if config["rules"] == Rules.REFERENCE:
        return REFERENCE, REFERENCE
    group = config["sparsity"]["of"]
    if group is None:
        return EXACT, EXACT
    # The nearest total is within half a step of the largest block: one more weight in its groups.
    blocks = len({key.partition(".")[0] for key in linears})
    step = max(1 / (group * max(blocks, 1)), REMAINDER)
    # Groups keep at least one weight, even in a block whose density is below one of them.
    is_lowest = any(share > 1 - 1.5 / group for share in linears.values())
    return (step + 1 / group if is_lowest else step), step
