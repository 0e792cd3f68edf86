"""What a refinement is: it exchanges pruned and kept weights of a finished mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.statistics import InputStatistics, Need


class Refine(ABC):
    """Changes a mask, never a weight; subclasses are frozen dataclasses.

    It starts from the pruner's `initial_mask`, so the kept weights stay as they are, and it works
    under any plan.

    Attributes:
        needs: the input statistics that must be gathered.
        patterns: whether an N:M pattern of the mask is kept.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    patterns: ClassVar[bool] = False

    def check(self, pruner: Pruner, sparsity: float, rules: Rules) -> None:  # noqa: B027
        """Raise `UserError` for what cannot be combined; called before a model is loaded."""

    def applies_to(self, subject: DecoderModel, linear: PrunableLinear) -> bool:
        """Whether the mask of `linear` is changed at all."""
        return True

    @abstractmethod
    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        """A new mask (rows, cols), True = pruned; `weight` and `mask` are left as they are.

        Under ``rules=exact`` every row has as many True as before.
        """
