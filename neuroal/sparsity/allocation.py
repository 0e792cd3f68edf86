"""The result of a sparsity allocation: a plan, a report of the search, and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from neuroal.sparsity.budget import LinearBudget
from neuroal.sparsity.plan import SparsityPlan


@dataclass(frozen=True, eq=False)
class Allocation:
    """A plan with a report and, if the search computed them, its budgets.

    Attributes:
        plan: sparsity of every linear.
        report: results of the search in JSON types, such as the λ's and all criteria.
        budgets: zeros of every row under `plan`, by linear; None: not computed yet.
    """

    plan: SparsityPlan
    report: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, LinearBudget] | None = None

    def to_dict(self) -> Mapping[str, Any]:
        """Return plan and report in JSON types, always as the same object; do not modify it."""
        return self._content

    @cached_property
    def _content(self) -> Mapping[str, Any]:
        return {**self.plan.to_dict(), "report": dict(self.report)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Allocation:
        return cls(SparsityPlan.from_dict(data), data["report"])
