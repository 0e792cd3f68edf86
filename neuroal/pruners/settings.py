"""Settings shared by allocation and pruning: the pruner and the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets, total_zeros
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
        devices: devices that share the work, the model's own first (`replicated`); empty: only
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
            UserError: the plan does not match the model or the sparsity, or has ratios per row
                that these settings do not allow.
        """
        if abs(plan.sparsity - self.sparsity) > 1e-9:
            raise UserError(
                f"plan: made for a sparsity of {plan.sparsity:g}, not for "
                f"sparsity.ratio={self.sparsity:g}; a top-up must allocate settings.sparsity"
            )
        if plan.per_row():
            self.check_row_ratios("plan: the plan has ratios per row", "topup.step=block")
        return linear_budgets(plan, decoder, self.rules, self.group)

    def check_total(self, budgets: Mapping[str, LinearBudget], decoder: DecoderModel) -> None:
        """Raise `UserError` unless `budgets`, which a top-up returned, have the exact total."""
        if self.rules is not Rules.EXACT or self.group is not None:
            return
        zeros = int(torch.stack([budget.counts.sum() for budget in budgets.values()]).sum())
        total = total_zeros(self.sparsity, decoder.numel)
        if zeros != total:
            raise UserError(
                f"plan: its budgets have {zeros} zeros, not the {total} of "
                f"sparsity.ratio={self.sparsity:g}; a top-up must return context.budgets(plan)"
            )

    def check_rules(self) -> None:
        """Raise `UserError` if the budget rules are not defined for the pruner."""
        if self.rules not in self.pruner.rules:
            defined = " or ".join(f"rules={rules}" for rules in sorted(self.pruner.rules))
            raise UserError(
                f"rules={self.rules}: not defined for pruner={self.pruner.name}; use {defined}"
            )

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
