"""What a top-up is: it decides how many zeros each linear, or each row, shall get."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Allotment, Rules, allot
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
        group: M of an N:M pattern, where one is asked for.
        seed: of everything drawn at random.
        devices: that share the candidates of a search, the subject's first; empty: that alone.
    """

    subject: DecoderModel
    pruner: Pruner
    sparsity: float
    rules: Rules
    tokens: Tensor
    batch: int
    progress: Progress
    group: int | None = None
    seed: int = 0
    devices: tuple[torch.device, ...] = ()

    def allot(self, plan: SparsityPlan) -> dict[str, Allotment]:
        """What `plan` comes to in zeros."""
        return allot(plan, self.subject, self.rules, self.group)


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

    def check(  # noqa: B027
        self, pruner: Pruner, sparsity: float, rules: Rules, group: int | None = None
    ) -> None:
        """Raise `UserError` for what cannot be combined; called before a model is loaded.

        Args:
            pruner: whose order of the weights the plan would be for.
            sparsity: share of zeros.
            rules: exact or reference.
            group: M of an N:M pattern, where one is asked for.
        """

    @abstractmethod
    def allocate(self, context: AllocationContext) -> Allocation:
        """Make the plan."""
