"""A plan made before, from a file."""

from __future__ import annotations

from dataclasses import dataclass

from neuroal.errors import UserError
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.topups.base import Allocation, AllocationContext, TopUp

TOLERANCE = 5e-3


@dataclass(frozen=True)
class FixedPlan(TopUp):
    """Ratios from a saved plan (``save.plan=FILE``, or ``plan.json`` beside a saved model).

    Args:
        path: the file. Its sparsity must be the one that is asked for.
    """

    path: str | None = None

    def check(
        self, pruner: Pruner, sparsity: float, rules: Rules, group: int | None = None
    ) -> None:
        plan = self._load()
        if abs(plan.sparsity - sparsity) > TOLERANCE:
            raise UserError(
                f"sparsity.ratio={sparsity}: the plan {self.path} was made for {plan.sparsity}; "
                f"set sparsity.ratio={plan.sparsity}"
            )

    def allocate(self, context: AllocationContext) -> Allocation:
        plan = self._load()
        return Allocation(SparsityPlan(plan.ratios, context.sparsity), {"path": self.path})

    def _load(self) -> SparsityPlan:
        if not self.path:
            raise UserError("topup.path: topup=plan needs the file of a saved plan")
        return SparsityPlan.load(self.path)
