"""What a top-up is: it decides how many zeros each linear, or each row, shall get."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.tracking import Progress


@dataclass(frozen=True, eq=False)
class AllocationContext:
    """What a top-up may look at.

    Attributes:
        subject: the dense model; left dense.
        pruner: whose order of the weights the plan is for.
        sparsity: share of zeros over all prunable weights.
        rules: exact or reference.
        tokens: search windows (windows, seqlen); empty where the top-up searches nothing.
        batch: windows in one forward pass.
        progress: told of every step.
    """

    subject: DecoderModel
    pruner: Pruner
    sparsity: float
    rules: Rules
    tokens: Tensor
    batch: int
    progress: Progress


@dataclass(frozen=True, eq=False)
class Allocation:
    """A plan and how it came about (JSON types only: λ's, every candidate's criterion, …)."""

    plan: SparsityPlan
    report: Mapping[str, Any] = field(default_factory=dict)


class TopUp(ABC):
    """Makes the plan. Subclasses are frozen dataclasses whose fields are their parameters.

    Attributes:
        searches: whether `AllocationContext.tokens` are used.
    """

    searches: ClassVar[bool] = False

    def check(self, pruner: Pruner, sparsity: float, rules: Rules) -> None:  # noqa: B027
        """Raise `UserError` for what cannot be combined; called before a model is loaded."""

    @abstractmethod
    def allocate(self, context: AllocationContext) -> Allocation:
        """Make the plan."""
