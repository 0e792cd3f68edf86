"""Magnitude pruning: zero the weights with the lowest magnitudes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics
from neuroal.pruners.base import FactorPruner, Factors


@dataclass(frozen=True)
class Magnitude(FactorPruner):
    """Prune by the score S_rc = |W_rc|, without calibration.

    Source: Han et al., 2015 (arXiv 1506.02626). Scores are compared within a row, as in
    the NeuroAL authors' code.
    """

    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        return Factors()
