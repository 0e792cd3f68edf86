"""What a pruner is: from a weight and its input statistics to a mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

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
        return PrunedWeight(weight.masked_fill(mask, 0), mask)


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
