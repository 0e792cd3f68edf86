"""multiflow: score weights by magnitude and the flow through the neurons they connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.pruners.base import FactorPruner, Factors, measured


@dataclass(frozen=True)
class Multiflow(FactorPruner):
    """Prune by the score S_rc = |W_rc|·u_r·v_c.

    With F_rc = |W_rc|·a_c and a the input norms (cols,), u (rows,) are the row means of F and
    v (cols,) its column means. On language models the score is local to the linear.

    Source: Farina et al., 2024 (arXiv 2404.05621), in the form used by the NeuroAL authors' code.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM})

    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        saliency = weight.float().abs() * measured(statistics).norm
        return Factors(rows=saliency.mean(1), cols=saliency.mean(0))
