"""Magnitude pruning: the smallest weights go."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuroal.pruners.base import FactorPruner, Factors
from neuroal.statistics import InputStatistics


@dataclass(frozen=True)
class Magnitude(FactorPruner):
    """Score of weight (r, c): |W_rc|. Needs no calibration.

    Source: Han et al., 2015 (arXiv 1506.02626), compared within a row as in NeuroAL's code.
    """

    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        return Factors()
