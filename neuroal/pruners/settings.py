"""Settings shared by allocation and pruning: the pruner and the budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.plan import SparsityPlan


@dataclass(frozen=True, eq=False)
class PruningSettings:
    """The pruner, the budget, and the devices and batch size to use.

    Attributes:
        pruner: selects the weights of a linear to prune.
        sparsity: share of zeros over all prunable weights, in (0, 1).
        rules: budget rules, exact or reference.
        group: M of an N:M pattern, with N from the ratio of each block; None: unstructured.
        seed: seed of all random draws.
        devices: devices that share the candidates of a search, the model's own first; empty: only
            the model's own.
        batch: windows in one forward pass; None: chosen from free memory.
    """

    pruner: Pruner
    sparsity: float
    rules: Rules = Rules.EXACT
    group: int | None = None
    seed: int = 0
    devices: tuple[torch.device, ...] = ()
    batch: int | None = None

    def budgets(self, plan: SparsityPlan, decoder: DecoderModel) -> dict[str, LinearBudget]:
        """Return the zeros of every row of every linear of `decoder` under `plan`.

        Raises:
            UserError: the plan does not match the model, or has ratios per row that these settings
                do not allow.
        """
        if plan.per_row():
            self.check_row_ratios("plan: the plan has ratios per row", "topup.step=block")
        return linear_budgets(plan, decoder, self.rules, self.group)

    def check_row_ratios(self, key: str, remedy: str) -> None:
        """Raise `UserError` if a plan with a ratio per row cannot be used.

        Args:
            key: setting that requires such a plan, such as ``topup.step=row``.
            remedy: setting to use instead, such as ``topup.step=block``.
        """
        if self.group is not None:
            raise UserError(
                f"{key}: an N:M pattern (sparsity.of={self.group}) has one N for a whole linear, "
                f"not one per row; use {remedy}"
            )
        if not self.pruner.supports_row_ratios(self.rules):
            raise UserError(
                f"{key}: the authors' code has no ratios per row for pruner={self.pruner.name}; "
                f"use rules=exact, or {remedy}"
            )
