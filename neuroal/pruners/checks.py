"""Check what a method returns for each linear, without waiting for a GPU at each one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.runner import raise_unless_finite
from neuroal.kernels.async_copy import HostCopy
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.kernels.masks import is_masked
from neuroal.kernels.selection import largest
from neuroal.pruners.base import FactorPruner, MaskRefiner, PrunedWeight, Pruner, ScorePruner
from neuroal.pruners.faults import MethodFault, check_tensor
from neuroal.sparsity.budget import LinearBudget, Rules

PROBLEMS = {
    "finite": "its scores are NaN or infinite; they must be finite",
    "zeros": "its mask does not have the zeros of the budget: {zeros} in all, and in every row or "
    "group as the budget says",
    "masked": "its weight is not 0 where its mask prunes; it must be",
    "unchanged": "its weight is not the original one with 0 where its mask prunes; a pruner that "
    "changes other weights must declare updates_weights = True",
    "updated": "an updated weight is NaN or infinite; try model.dtype=bfloat16 or float32",
}
"""Problem by the name of a check; the first check that fails is reported."""


@dataclass(frozen=True, eq=False)
class _Queued:
    """Checks of linears: their names, and a row of results for each; `differing` may follow."""

    keys: Sequence[str]
    names: tuple[str, ...]
    results: HostCopy
    budgets: Sequence[LinearBudget]


class PruningChecks:
    """Checks of pruned linears, queued on their device until `read`.

    Attributes:
        differing: entries of prescribed masks that free choices would set differently, so far;
            None: none was compared.
    """

    def __init__(self, pruner: Pruner, refiner: MaskRefiner | None) -> None:
        self._pruner, self._refiner = pruner, refiner
        self._setting = refiner.setting if refiner else pruner.setting
        self._queue: list[_Queued] = []
        self._inputs: list[tuple[Sequence[str], HostCopy]] = []
        self.differing: int | None = None

    def add_inputs(self, statistics: Mapping[str, InputStatistics]) -> None:
        """Queue the check that the measured inputs of linears are finite."""
        if statistics:
            finite = torch.stack([inputs.finite for inputs in statistics.values()])
            self._inputs.append((list(statistics), HostCopy(finite)))

    def add(self, key: str, weight: Tensor, pruned: PrunedWeight, budget: LinearBudget) -> None:
        """Queue the checks of a linear.

        Args:
            key: the linear.
            weight: its dense weight (rows, cols).
            pruned: result of the method.
            budget: zeros that the mask must have.
        """
        flags = self._flags(weight, pruned, budget)
        rows = {name: flag[None] for name, flag in flags.items()}
        differing = None if pruned.differing is None else pruned.differing[None]
        self._add([key], rows, differing, [budget])

    def add_batch(
        self,
        keys: Sequence[str],
        weights: Tensor,
        pruned: PrunedWeight,
        budgets: Sequence[LinearBudget],
    ) -> None:
        """Queue the checks of linears that were pruned by `batches.prune_together`.

        Args:
            keys: the linears.
            weights: their dense weights (linears, rows, cols).
            pruned: result for all of them.
            budgets: zeros that each mask must have.
        """
        assert pruned.finite is not None
        counts = torch.stack([budget.counts for budget in budgets])
        zeros = pruned.mask.view(torch.uint8).sum(2, dtype=torch.int32)
        flags = {
            "finite": pruned.finite,
            "zeros": (zeros == counts.to(zeros.device, non_blocking=True)).all(1),
        }
        if weights.is_cuda:
            flags["unchanged"] = is_masked(pruned.weight, weights, pruned.mask)
        self._add(keys, flags, pruned.differing, budgets)

    def _add(
        self,
        keys: Sequence[str],
        flags: Mapping[str, Tensor],
        differing: Tensor | None,
        budgets: Sequence[LinearBudget],
    ) -> None:
        results = [*flags.values(), *([] if differing is None else [differing])]
        if results:
            copy = HostCopy(torch.stack([result.long() for result in results], 1))
            self._queue.append(_Queued(keys, tuple(flags), copy, budgets))

    def _flags(
        self, weight: Tensor, pruned: PrunedWeight, budget: LinearBudget
    ) -> dict[str, Tensor]:
        """Return whether each check passes, () bool on the device of `weight`."""
        flags = {} if pruned.finite is None else {"finite": pruned.finite}
        if self._refiner is None:
            flags["zeros"] = self._pruner.meets(pruned.mask, budget)
        elif budget.rules is Rules.EXACT:
            flags["zeros"] = budget.met_by(pruned.mask)
        if self._refiner is not None:
            return flags  # `RefinedPruner` has zeroed the weight itself
        if self._pruner.updates_weights:
            flags["updated"] = largest(pruned.weight).isfinite()
            flags["masked"] = is_masked(pruned.weight, pruned.weight, pruned.mask)
        elif weight.is_cuda or not _only_zeroes(self._pruner):
            flags["unchanged"] = is_masked(pruned.weight, weight, pruned.mask)
        return flags

    def read(self) -> None:
        """Wait for the queued checks.

        Raises:
            UserError: a check failed; the message names the linear, and the method if its result
                is at fault.
        """
        queued_inputs, self._inputs = self._inputs, []
        for keys, finite in queued_inputs:
            raise_unless_finite(keys, finite.get().tolist())
        queue, self._queue = self._queue, []
        for linears in queue:
            table = linears.results.get().tolist()
            for key, budget, results in zip(linears.keys, linears.budgets, table, strict=True):
                for name, passed in zip(linears.names, results, strict=False):
                    if not passed:
                        raise self._error(name, key, budget)
                if compared := results[len(linears.names) :]:
                    self.differing = sum(compared, self.differing or 0)

    def _error(self, name: str, key: str, budget: LinearBudget) -> UserError:
        problem = PROBLEMS[name].format(zeros=int(budget.counts.sum()))
        # A refiner has no scores, so those that are not finite are the pruner's.
        setting = self._pruner.setting if name == "finite" else self._setting
        return UserError(f"{setting}: '{key}': {problem}")


def _only_zeroes(pruner: Pruner) -> bool:
    """Return whether `pruner` is one of scores, whose inherited `prune` only zeroes weights."""
    return type(pruner).prune in (ScorePruner.prune, FactorPruner.prune)


def check_result(setting: str, pruned: object, weight: Tensor) -> None:
    """Raise `MethodFault` unless `pruned` is a `PrunedWeight` of the shape of `weight`."""
    if not isinstance(pruned, PrunedWeight):
        problem = f"prune returned a {type(pruned).__name__}; must return a PrunedWeight"
        raise MethodFault(setting, problem)
    check_tensor(setting, "pruned weight", pruned.weight, weight)
    check_mask(setting, pruned.mask, weight)


def check_mask(setting: str, mask: object, weight: Tensor) -> None:
    """Raise `MethodFault` unless `mask` is a bool tensor of the shape of `weight`."""
    check_tensor(setting, "mask", mask, weight)
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        raise MethodFault(setting, f"the mask is {mask.dtype}; must be torch.bool, True = pruned")


def check_unwritten(setting: str, weight: Tensor, version: int) -> None:
    """Raise `MethodFault` if `weight` was changed in place since it had `version`."""
    if weight._version != version:
        raise MethodFault(setting, "it changed its input in place; it must return a copy")
