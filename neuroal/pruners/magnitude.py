"""Magnitude pruning: the smallest weights go."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuroal.pruners.base import ScorePruner
from neuroal.statistics import InputStatistics


@dataclass(frozen=True)
class Magnitude(ScorePruner):
    """Score of weight (r, c): |W_rc|. Needs no calibration.

    Source: Han et al., 2015 (arXiv 1506.02626), compared within a row as in NeuroAL's code.
    """

    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        return weight.float().abs()
