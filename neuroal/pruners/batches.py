"""Prune siblings together: linears of one name up to numbers, and of one shape, such as experts.

The time of a small linear on a GPU is that of starting its kernels. The siblings of a batch are
therefore copied into one tensor and pruned as one matrix of all their rows. The results have the
bytes of pruning them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics
from neuroal.kernels.selection import largest_of_each, prune_rows, zeroed
from neuroal.models.adapter import PrunableLinear
from neuroal.models.families import pattern_of
from neuroal.pruners.base import FactorPruner, Factors, PrunedWeight, Pruner
from neuroal.pruners.checks import check_mask, check_unwritten
from neuroal.pruners.faults import faults_of, naming
from neuroal.sparsity.budget import LinearBudget

MOST_WEIGHTS = 2**25
"""Weights of a batch at most. Linears of more than half of them keep a GPU busy alone."""
INHERITED = ("prune", "pruned_weight", "prune_to", "meets")
"""Methods of a pruner that `prune_together` replaces."""

Batch = tuple[PrunableLinear, ...]
Statistics = Mapping[str, InputStatistics]
Budgets = Mapping[str, LinearBudget]


def batches(linears: Sequence[PrunableLinear], pruner: Pruner, budgets: Budgets) -> list[Batch]:
    """Return `linears` of one block in batches for `prune_together`, or each by itself."""
    if not scores_by_factors(pruner):
        return [(linear,) for linear in linears]
    siblings: dict[object, list[PrunableLinear]] = {}
    for linear in linears:
        weight, budget = linear.weight, budgets[linear.key]
        name = linear.name if budget.pattern else pattern_of(linear.name)
        kind = (name, weight.shape, weight.dtype, weight.device, budget.ties_to_higher)
        siblings.setdefault(kind, []).append(linear)
    result = []
    for group in siblings.values():
        most = max(MOST_WEIGHTS // group[0].numel, 1)
        result += [tuple(group[i : i + most]) for i in range(0, len(group), most)]
    return result


def scores_by_factors(pruner: Pruner) -> bool:
    """Return whether `pruner` only multiplies weights by factors, as `prune_together` does."""
    inherits = (getattr(type(pruner), name) is getattr(FactorPruner, name) for name in INHERITED)
    return isinstance(pruner, FactorPruner) and all(inherits)


def prune_together(
    pruner: FactorPruner,
    batch: Batch,
    weights: Tensor,
    statistics: Statistics,
    budgets: Budgets,
    targets: Mapping[str, Tensor] | None = None,
) -> PrunedWeight:
    """Prune a batch of `batches`, with the results of `Pruner.prune` or `Pruner.prune_to`.

    Args:
        pruner: computes the factors of each linear.
        batch: the linears, which do not change.
        weights: their weights, (linears, rows, cols), contiguous.
        statistics: statistics of the inputs, by linear.
        budgets: zeros of every row, by linear.
        targets: masks to which to prune, by linear; None: the pruner chooses.

    Returns:
        All results, with the linears as an additional first dimension.
    """
    factors = _factors(pruner, batch, statistics)
    pruned, mask = _prune_rows(batch, weights, factors, budgets, with_mask=True)
    assert mask is not None
    pruned, mask = pruned.view_as(weights), mask.view_as(weights)
    finite = _bounds(weights, factors).isfinite()
    if targets is None:
        return PrunedWeight(pruned, mask, finite)
    target = torch.stack([_target(linear, targets) for linear in batch])
    differing = (mask != target).flatten(1).sum(1)
    return PrunedWeight(zeroed(weights, target), target, finite, differing)


def pruned_together(
    pruner: FactorPruner, batch: Batch, statistics: Statistics, budgets: Budgets
) -> Tensor:
    """Return only the pruned weights of a batch, (linears, rows, cols), as for a search."""
    weights = torch.stack([linear.weight for linear in batch])
    factors = _factors(pruner, batch, statistics)
    return _prune_rows(batch, weights, factors, budgets, with_mask=False)[0].view_as(weights)


def _prune_rows(
    batch: Batch, weights: Tensor, factors: Factors, budgets: Budgets, *, with_mask: bool
) -> tuple[Tensor, Tensor | None]:
    return prune_rows(
        weights.flatten(0, 1),
        None if factors.rows is None else factors.rows.flatten(),
        factors.cols,
        torch.cat([budgets[linear.key].counts for linear in batch]),
        ties_to_higher=budgets[batch[0].key].ties_to_higher,
        with_mask=with_mask,
    )


def _factors(pruner: FactorPruner, batch: Batch, statistics: Statistics) -> Factors:
    """Return the factors of all linears: (linears, rows) and (linears, cols)."""
    rows, cols = [], []
    for linear in batch:
        weight = linear.weight
        version = weight._version
        with naming(linear.key), faults_of(pruner, weight):
            factors = pruner.checked_factors(weight, statistics.get(linear.key))
            check_unwritten(pruner.setting, weight, version)
        rows.append(factors.rows)
        cols.append(factors.cols)
    return Factors(_stacked(rows), _stacked(cols))


def _stacked(factors: Sequence[Tensor | None]) -> Tensor | None:
    present = [factor for factor in factors if factor is not None]
    if not present:
        return None
    ones = torch.ones_like(present[0])
    return torch.stack([ones if factor is None else factor for factor in factors])


def _bounds(weights: Tensor, factors: Factors) -> Tensor:
    """Return `Factors.bound` of each linear: (linears,) float32."""
    bounds = largest_of_each(weights).float()
    for factor in (factors.rows, factors.cols):
        if factor is not None:
            bounds = bounds * largest_of_each(factor)
    return bounds


def _target(linear: PrunableLinear, targets: Mapping[str, Tensor]) -> Tensor:
    target = targets[linear.key].to(linear.weight.device)
    with naming(linear.key):
        check_mask("masks", target, linear.weight)
    return target
