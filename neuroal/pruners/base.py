"""Interfaces of pruners and mask refiners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.kernels.selection import largest, lowest_per_row, prune_rows, scores_of, zeroed
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.faults import check_tensor
from neuroal.pruners.method import Method
from neuroal.sparsity.budget import LinearBudget, Rules


@dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A pruned linear, or several with an additional first dimension (`batches.prune_together`).

    Attributes:
        weight: (rows, cols), zero wherever `mask` is True.
        mask: (rows, cols) bool, True = pruned.
        finite: whether the scores were finite, () bool on their device; None: there are none.
        differing: entries of a prescribed mask that the pruner would choose differently, () int64
            on the device; None: the pruner chose the mask, or did not compare it.
    """

    weight: Tensor
    mask: Tensor
    finite: Tensor | None = None
    differing: Tensor | None = None


class Pruner(Method, ABC):
    """A pruner selects the weights of one linear to prune; subclasses are frozen dataclasses.

    Subclass `ScorePruner` if a score for each weight is enough. Subclass this class to update the
    remaining weights as well.

    Attributes:
        needs: input statistics to collect; empty: no forward pass is run.
        updates_weights: whether the remaining weights change.
        rules: budget rules that are defined for the method.
        refinable: whether a refinement may change its masks.
        file_parameters: see `Method`.
    """

    group: ClassVar[str] = "pruner"
    needs: ClassVar[frozenset[Need]] = frozenset()
    updates_weights: ClassVar[bool] = False
    rules: ClassVar[frozenset[Rules]] = frozenset(Rules)
    refinable: ClassVar[bool] = True

    def supports_row_ratios(self, rules: Rules) -> bool:
        """Return whether a plan may have one ratio per row under `rules`."""
        return not (self.updates_weights and rules is Rules.REFERENCE)

    def check_tokens(self, tokens: int, decoder: DecoderModel) -> None:
        """Warn if the number of calibration `tokens` is too low for the linears of `decoder`."""

    def operations_per_weight(self, cols: float) -> float:
        """Return the approximate floating-point operations per weight of a linear with `cols`.

        Estimates of time use it. 0: negligible beside the forward passes.
        """
        return 0.0

    @abstractmethod
    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        """Return `weight` pruned by `budget`; `weight` itself does not change.

        Args:
            weight: (rows, cols).
            statistics: statistics of the inputs; None if `needs` is empty.
            budget: zeros of each row.
        """

    def prune_to(
        self,
        weight: Tensor,
        statistics: InputStatistics | None,
        budget: LinearBudget,
        mask: Tensor,
    ) -> PrunedWeight | None:
        """Return `weight` pruned to `mask` (rows, cols), which an earlier run chose.

        With the mask that `prune` chooses, the result has the bytes of `prune`. `differing` counts
        the entries that it would choose differently, unless that takes too long. None: the pruner
        updates weights and cannot do so to a prescribed mask.
        """
        if self.updates_weights:
            return None
        return masked_to(weight, mask, self.prune(weight, statistics, budget))

    def meets(self, mask: Tensor, budget: LinearBudget) -> Tensor:
        """Return whether `mask` (rows, cols) has the zeros of `budget`: () bool, on its device.

        Every row has its count, and every group of a pattern. A pruner that updates weights may
        distribute the zeros of a linear with one ratio over its rows.
        """
        if self.updates_weights and budget.pattern is None and not isinstance(budget.ratio, Tensor):
            return mask.sum() == budget.counts.sum().to(mask.device, non_blocking=True)
        return budget.met_by(mask)

    def pruned_weight(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> Tensor:
        """Return only the weight of `prune`, for searches, which do not use the mask."""
        return self.prune(weight, statistics, budget).weight

    def initial_mask(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> Tensor:
        """Return the mask from which a refinement starts, for unchanged weights."""
        return self.prune(weight, statistics, budget).mask

    def start(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        """Return `weight` pruned by `initial_mask`, and whether its scores are finite."""
        if type(self).initial_mask is Pruner.initial_mask:
            return self.prune(weight, statistics, budget)
        return PrunedWeight(weight, self.initial_mask(weight, statistics, budget))

    def input_norm(self, statistics: InputStatistics, *, reference: bool) -> Tensor:
        """Return the activation norm (cols,) that the alignment criterion compares."""
        return statistics.norm


class ScorePruner(Pruner):
    """A pruner that zeroes the lowest scores of every row; the other weights do not change."""

    @abstractmethod
    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        """Return the score of every weight, (rows, cols) float32; the lowest are pruned first.

        Scores must be finite.
        """

    def checked_scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        """Return `scores`, after a check of their shape."""
        scores = self.scores(weight, statistics)
        check_tensor(self.setting, "tensor of scores", scores, weight)
        return scores

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        scores = self.checked_scores(weight, statistics)
        mask = lowest(scores, budget)
        return PrunedWeight(zeroed(weight, mask), mask, largest(scores).isfinite())


@dataclass(frozen=True, eq=False)
class Factors:
    """The factors u (rows,) and v (cols,) float32 of a score |W_rc|·u_r·v_c; None: all ones."""

    rows: Tensor | None = None
    cols: Tensor | None = None

    def bound(self, weight: Tensor) -> Tensor:
        """Return an upper bound of the scores of `weight`, NaN if a factor is: () float32."""
        bound = largest(weight).float()
        for factor in (self.rows, self.cols):
            if factor is not None:
                bound = bound * largest(factor)
        return bound


class FactorPruner(ScorePruner):
    """A pruner with the score |W_rc|·u_r·v_c; a GPU kernel computes it without storing it."""

    @abstractmethod
    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        """Return u and v of `weight` (rows, cols)."""

    def checked_factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        """Return `factors`, after a check of their shapes."""
        factors = self.factors(weight, statistics)
        for name, factor, size in zip(
            ("rows", "cols"), (factors.rows, factors.cols), weight.shape, strict=True
        ):
            if factor is not None:
                check_tensor(self.setting, f"factor of the {name}", factor, torch.Size([size]))
        return factors

    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        factors = self.checked_factors(weight, statistics)
        return scores_of(weight, factors.rows, factors.cols)

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        if budget.pattern is not None:
            return super().prune(weight, statistics, budget)
        factors = self.checked_factors(weight, statistics)
        pruned, mask = self._prune_rows(weight, factors, budget, with_mask=True)
        assert mask is not None
        return PrunedWeight(pruned, mask, factors.bound(weight).isfinite())

    def pruned_weight(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> Tensor:
        if budget.pattern is not None:
            return super().pruned_weight(weight, statistics, budget)
        factors = self.checked_factors(weight, statistics)
        return self._prune_rows(weight, factors, budget, with_mask=False)[0]

    def _prune_rows(
        self, weight: Tensor, factors: Factors, budget: LinearBudget, *, with_mask: bool
    ) -> tuple[Tensor, Tensor | None]:
        return prune_rows(
            weight,
            factors.rows,
            factors.cols,
            budget.counts,
            ties_to_higher=budget.ties_to_higher,
            with_mask=with_mask,
        )


class MaskRefiner(Method, ABC):
    """A refiner changes masks and never weights; subclasses are frozen dataclasses.

    It starts from the pruner's `initial_mask`, so the remaining weights keep their values. It works
    with any plan.

    Attributes:
        needs: input statistics to collect.
        patterns: whether an N:M pattern of the mask is preserved.
        file_parameters: see `Method`.
    """

    group: ClassVar[str] = "refine"
    needs: ClassVar[frozenset[Need]] = frozenset()
    patterns: ClassVar[bool] = False

    def applies_to(self, decoder: DecoderModel, linear: PrunableLinear) -> bool:
        """Return whether the mask of `linear` is changed at all."""
        return True

    @abstractmethod
    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        """Return a new mask (rows, cols), True = pruned; `weight` and `mask` do not change.

        Under ``rules=exact`` every row has as many True entries as before.
        """


def masked_to(weight: Tensor, mask: Tensor, free: PrunedWeight) -> PrunedWeight:
    """Return `weight` zeroed by a prescribed `mask`, compared with the mask of `free`."""
    return PrunedWeight(zeroed(weight, mask), mask, free.finite, (free.mask != mask).sum())


def lowest(scores: Tensor, budget: LinearBudget) -> Tensor:
    """Return the mask of the lowest scores of every row, or of every group of an N:M pattern."""
    if budget.pattern is not None:
        return budget.pattern.lowest(scores)
    return lowest_per_row(scores, budget.counts, ties_to_higher=budget.ties_to_higher)


def measured(statistics: InputStatistics | None) -> InputStatistics:
    """Return `statistics`, which a pruner with `needs` always receives."""
    if statistics is None:
        raise ValueError("this pruner declares needs but received no statistics")
    return statistics
