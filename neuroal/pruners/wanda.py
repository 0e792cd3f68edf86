"""Wanda: score weights by magnitude times input norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.pruners.base import FactorPruner, Factors, measured


@dataclass(frozen=True)
class Wanda(FactorPruner):
    """Prune by the score S_rc = |W_rc|·a_c, with a_c = sqrt(mean over windows of Σ_tokens x_c²).

    Source: Sun et al., 2024 (arXiv 2306.11695), section 3.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM})

    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        return Factors(cols=measured(statistics).norm)
