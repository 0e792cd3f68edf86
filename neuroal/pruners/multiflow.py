"""multiflow: weights by magnitude times the flow through the neurons they connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroal.pruners.base import FactorPruner, Factors, measured
from neuroal.statistics import InputStatistics, Need


@dataclass(frozen=True)
class Multiflow(FactorPruner):
    """Score of weight (r, c): |W_rc|·u_r·v_c.

    With S = |W|·a (a broadcast over rows), u (rows,) are the row means of S and v (cols,) its
    column means. On language models the score is local to the layer.

    Source: Farina et al., 2024 (arXiv 2404.05621), as used by NeuroAL.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM})

    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        saliency = weight.float().abs() * measured(statistics).norm
        return Factors(rows=saliency.mean(1), cols=saliency.mean(0))
