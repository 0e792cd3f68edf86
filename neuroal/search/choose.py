"""Evaluate a list of candidates on the search windows and choose the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from neuroal.parallel.replicated import group_of
from neuroal.search.context import AllocationContext
from neuroal.search.criteria.base import Budgets, CandidateResult, Criterion
from neuroal.search.evaluate import (
    Candidates,
    MakePlan,
    SharedSearch,
    budgets_of,
    evaluated,
    evaluated_by_all,
)
from neuroal.search.prefilter import estimate_around_best, finalists
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.sparsity.plan import SparsityPlan

SEARCHES = ("exact", "adaptive")


@dataclass(frozen=True, eq=False)
class PriorResult:
    """An earlier result for a plan that may be among the candidates.

    `estimate` is its criterion on shortened windows; None: not computed.
    """

    budgets: Budgets
    result: CandidateResult
    estimate: float | None = None

    def covers(self, budgets: Budgets) -> bool:
        """Return whether `budgets` give the same masks, for pruners that do not update weights."""
        return all(
            torch.equal(mine.counts, theirs.counts.to(mine.counts.device))
            and mine.ties_to_higher == theirs.ties_to_higher
            and mine.pattern == theirs.pattern
            for mine, theirs in ((self.budgets[key], budgets[key]) for key in budgets)
        )


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best candidate and the criteria of all candidates.

    Attributes:
        winner: index of the best candidate; `plan`, `budgets` and `result` belong to it.
        criteria: criterion of every candidate, in order; None: not evaluated by an adaptive search.
        estimates: criterion of every candidate on the shortened windows of an adaptive search;
            None: not estimated. None for an exact search.
    """

    winner: int
    plan: SparsityPlan
    budgets: dict[str, LinearBudget]
    result: CandidateResult
    criteria: list[float | None]
    estimates: list[float | None] | None = None

    def prior(self) -> PriorResult:
        """Return the winner as a prior result for a further search."""
        estimate = None if self.estimates is None else self.estimates[self.winner]
        return PriorResult(self.budgets, self.result, estimate)

    def report(self, step: str, candidates: Sequence[float]) -> dict[str, Any]:
        """Return the entries of `Allocation.report` for `step`, which is part of their names."""
        report: dict[str, Any] = {
            f"lambda_{step}": candidates[self.winner],
            f"candidates_{step}": list(candidates),
            f"criterion_{step}": self.criteria,
        }
        if self.estimates is not None:
            report[f"ranking_{step}"] = self.estimates
        return report


@dataclass(frozen=True, eq=False)
class Search:
    """A search for the candidate with the lowest criterion.

    Attributes:
        context: model, settings and windows.
        criterion: evaluates a candidate.
        shortened: the criterion on shortened windows, with which an adaptive search skips
            candidates that are unlikely to win (`finalists`); None: evaluate all.
        shared: the search, as the other devices of the model know it (`shared_search`); None:
            only the first device evaluates candidates.
    """

    context: AllocationContext
    criterion: Criterion
    shortened: Criterion | None = None
    shared: SharedSearch | None = None

    def choose(
        self,
        candidates: Sequence[float],
        make: MakePlan,
        stage: str,
        prior: PriorResult | None = None,
        *,
        differences: bool = False,
    ) -> SearchResult:
        """Evaluate the plans of `candidates`; the lowest criterion wins, the first on ties.

        Args:
            candidates: values of λ, at least one.
            make: returns the plan of a candidate; other devices receive it by `pickle`.
            stage: name of the stage for progress updates.
            prior: reused if the first candidate has the same budgets.
            differences: whether the δ of the best candidate will be used.
        """
        plans = [partial(make, self.context, candidate) for candidate in candidates]
        results: dict[int, CandidateResult] = {}
        prior_estimates: dict[int, float] = {}
        if prior is not None and prior.covers(self.context.budgets(plans[0]())):
            results[0] = prior.result
            if prior.estimate is not None:
                prior_estimates[0] = prior.estimate
        estimates = self._estimates(plans, prior_estimates)
        order = range(len(plans)) if estimates is None else finalists(candidates, estimates)
        order = [index for index in order if index not in results]
        count = len(results) + len(order)
        with self.context.progress.stage(stage, count, "candidate") as step:
            for index, result in results.items():
                step.advance(1, candidate=candidates[index], criterion=result.criterion)
            for index, result in self._evaluate(Candidates(make, candidates, order, differences)):
                results[index] = result
                step.advance(1, candidate=candidates[index], criterion=result.criterion)
        winner = min(results, key=lambda index: _sort_key(index, results[index].criterion))
        plan = plans[winner]()
        indices = range(len(plans))
        return SearchResult(
            winner,
            plan,
            self.context.budgets(plan),
            results[winner],
            [results[index].criterion if index in results else None for index in indices],
            None if estimates is None else [estimates.get(index) for index in indices],
        )

    def _estimates(
        self, plans: Sequence[Callable[[], SparsityPlan]], prior: Mapping[int, float]
    ) -> dict[int, float] | None:
        """Return criteria on shortened windows around the best candidate; None: not used."""
        # With rules=reference the first candidate wins if its criterion is NaN, which an estimate
        # on other windows does not predict.
        criterion = self.shortened
        if criterion is None or self.context.settings.rules is not Rules.EXACT:
            return None

        def estimate(indices: Sequence[int]) -> list[float]:
            new = [index for index in indices if index not in prior]
            candidates = budgets_of(self.context, [plans[index] for index in new])
            criteria = (criterion.evaluate(budgets).criterion for budgets in candidates)
            estimates = {**prior, **dict(zip(new, criteria, strict=True))}
            return [estimates[index] for index in indices]

        return estimate_around_best(len(plans), estimate)

    def _evaluate(self, candidates: Candidates) -> Iterator[tuple[int, CandidateResult]]:
        order = candidates.order
        group = group_of(self.context.decoder.model)
        if group is None or self.shared is None or len(order) < 2:
            return evaluated(self.context, self.criterion, candidates, order)
        return evaluated_by_all(group, self.context, self.criterion, candidates, self.shared)


def _sort_key(index: int, criterion: float) -> tuple[float, int]:
    """Return a key that sorts the winner first; NaN (rules=reference) wins only as candidate 0."""
    if math.isnan(criterion):
        criterion = -math.inf if index == 0 else math.inf
    return criterion, index
