"""What a pruner is: from a weight and its input statistics to a mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuroal.kernels.selection import prune_rows, scores_of, zeroed
from neuroal.pruners.budget import Allotment
from neuroal.pruners.masks import lowest_per_row
from neuroal.statistics import InputStatistics, Need


@dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A pruned linear: weight (rows, cols), zero wherever mask (rows, cols) is True."""

    weight: Tensor
    mask: Tensor


class Pruner(ABC):
    """Decides which weights of one linear go; subclasses are frozen dataclasses.

    A subclass of `ScorePruner` needs no more than a score. This class is for those that also
    change the weights that stay.

    Attributes:
        needs: the input statistics that must be gathered; empty: no forward pass is run.
        updates_weights: whether kept weights change.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    updates_weights: ClassVar[bool] = False

    @abstractmethod
    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> PrunedWeight:
        """Prune `weight` (rows, cols) by `allotment`; `weight` itself is left as it is."""

    def pruned_weight(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> Tensor:
        """The weight that `prune` makes, where its mask is not wanted: in a search."""
        return self.prune(weight, statistics, allotment).weight

    def initial_mask(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> Tensor:
        """The mask that a refinement starts from, on unchanged weights."""
        return self.prune(weight, statistics, allotment).mask

    def input_norm(self, statistics: InputStatistics, *, reference: bool) -> Tensor:
        """The activation norm (cols,) that the alignment criterion compares."""
        return statistics.norm


class ScorePruner(Pruner):
    """Zeroes the lowest scores of every row; the other weights stay as they are."""

    @abstractmethod
    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        """Importance of every weight, float32 (rows, cols); the lowest of a row go first."""

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> PrunedWeight:
        mask = lowest(self.scores(weight, statistics), allotment)
        return PrunedWeight(zeroed(weight, mask), mask)


@dataclass(frozen=True, eq=False)
class Factors:
    """A score |W_rc|·u_r·v_c: u (rows,) and v (cols,) float32; None: all ones."""

    rows: Tensor | None = None
    cols: Tensor | None = None


class FactorPruner(ScorePruner):
    """A score that is |W_rc|·u_r·v_c, so that a GPU need never write the scores down."""

    @abstractmethod
    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        """u and v for `weight` (rows, cols)."""

    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        factors = self.factors(weight, statistics)
        return scores_of(weight, factors.rows, factors.cols)

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> PrunedWeight:
        if allotment.pattern is not None:
            return super().prune(weight, statistics, allotment)
        pruned, mask = self._prune_rows(weight, statistics, allotment, with_mask=True)
        assert mask is not None
        return PrunedWeight(pruned, mask)

    def pruned_weight(
        self, weight: Tensor, statistics: InputStatistics | None, allotment: Allotment
    ) -> Tensor:
        if allotment.pattern is not None:
            return super().pruned_weight(weight, statistics, allotment)
        return self._prune_rows(weight, statistics, allotment, with_mask=False)[0]

    def _prune_rows(
        self,
        weight: Tensor,
        statistics: InputStatistics | None,
        allotment: Allotment,
        *,
        with_mask: bool,
    ) -> tuple[Tensor, Tensor | None]:
        factors = self.factors(weight, statistics)
        return prune_rows(
            weight,
            factors.rows,
            factors.cols,
            allotment.counts,
            ties_to_higher=allotment.ties_to_higher,
            with_mask=with_mask,
        )


def lowest(scores: Tensor, allotment: Allotment) -> Tensor:
    """Mask of the lowest scores of every row, or of every group of an N:M pattern."""
    if allotment.pattern is not None:
        return allotment.pattern.lowest(scores)
    return lowest_per_row(scores, allotment.counts, ties_to_higher=allotment.ties_to_higher)


def measured(statistics: InputStatistics | None) -> InputStatistics:
    """The statistics, which a pruner that declared `needs` is always given."""
    if statistics is None:
        raise ValueError("this pruner declares needs, but was given no statistics")
    return statistics
