"""Check what a method returns for each linear, without waiting for a GPU at each one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.kernels.async_copy import HostCopy
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
    """Checks of one linear: their names, and their results before `differing`, if there is one."""

    key: str
    names: tuple[str, ...]
    results: HostCopy
    budget: LinearBudget


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
        self.differing: int | None = None

    def add(self, key: str, weight: Tensor, pruned: PrunedWeight, budget: LinearBudget) -> None:
        """Queue the checks of a linear.

        Args:
            key: the linear.
            weight: its dense weight (rows, cols).
            pruned: result of the method.
            budget: zeros that the mask must have.
        """
        flags = self._flags(weight, pruned, budget)
        results = list(flags.values())
        if pruned.differing is not None:
            results.append(pruned.differing)
        if not results:
            return
        copy = HostCopy(torch.stack([result.long() for result in results]))
        self._queue.append(_Queued(key, tuple(flags), copy, budget))

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
            UserError: a check failed; the message names method and linear.
        """
        queue, self._queue = self._queue, []
        for linear in queue:
            results = linear.results.get().tolist()
            for name, passed in zip(linear.names, results, strict=False):
                if not passed:
                    problem = PROBLEMS[name].format(zeros=int(linear.budget.counts.sum()))
                    # A refiner has no scores, so those that are not finite are the pruner's.
                    setting = self._pruner.setting if name == "finite" else self._setting
                    raise UserError(f"{setting}: '{linear.key}': {problem}")
            if compared := results[len(linear.names) :]:
                self.differing = sum(compared, self.differing or 0)


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
