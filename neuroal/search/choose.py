"""Evaluate a list of candidates on the search windows and choose the best."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from neuroal.search.context import AllocationContext
from neuroal.search.criteria.base import Budgets, CandidateResult, Criterion
from neuroal.search.multi_device import MultiDeviceCriterion
from neuroal.search.prefilter import estimate_around_best, finalists
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.sparsity.plan import SparsityPlan

SEARCHES = ("exact", "adaptive")

MakePlan = Callable[[], SparsityPlan]
"""Builds the plan of a candidate on demand, because row plans are large and slow to build."""


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

    With `shortened`, the criterion on shortened windows, an adaptive search skips candidates that
    are unlikely to win (`finalists`).
    """

    context: AllocationContext
    criterion: Criterion
    shortened: Criterion | None = None

    def choose(
        self,
        candidates: Sequence[float],
        make: Callable[[float], SparsityPlan],
        stage: str,
        prior: PriorResult | None = None,
    ) -> SearchResult:
        """Evaluate the plans of `candidates`; the lowest criterion wins, the first on ties.

        Args:
            candidates: values of λ, at least one.
            make: returns the plan of a candidate.
            stage: name of the stage for progress updates.
            prior: reused if the first candidate has the same budgets.
        """
        plans = [partial(make, candidate) for candidate in candidates]
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
            for index, result in self._evaluate(plans, order):
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
        self, plans: Sequence[MakePlan], prior: Mapping[int, float]
    ) -> dict[int, float] | None:
        """Return criteria on shortened windows around the best candidate; None: not used."""
        # With rules=reference the first candidate wins if its criterion is NaN, which an estimate
        # on other windows does not predict.
        criterion = self.shortened
        if criterion is None or self.context.settings.rules is not Rules.EXACT:
            return None

        def estimate(indices: Sequence[int]) -> list[float]:
            new = [index for index in indices if index not in prior]
            candidates = _budgets(self.context, [plans[index] for index in new])
            criteria = (criterion.evaluate(budgets).criterion for budgets in candidates)
            estimates = {**prior, **dict(zip(new, criteria, strict=True))}
            return [estimates[index] for index in indices]

        return estimate_around_best(len(plans), estimate)

    def _evaluate(
        self, plans: Sequence[MakePlan], order: Sequence[int]
    ) -> Iterator[tuple[int, CandidateResult]]:
        candidates = _budgets(self.context, [plans[index] for index in order])
        if isinstance(self.criterion, MultiDeviceCriterion):
            yield from zip(order, self.criterion.evaluate_all(candidates), strict=True)
            return
        for index, budgets in zip(order, candidates, strict=True):
            yield index, self.criterion.evaluate(budgets)


def _budgets(
    context: AllocationContext, plans: Sequence[MakePlan]
) -> Iterator[dict[str, LinearBudget]]:
    """Yield the budgets of each plan, prepared while a GPU evaluates the previous one."""
    device = context.decoder.device
    if not plans:
        return
    if device.type != "cuda" or len(context.settings.devices) > 1:
        yield from (context.budgets(plan()) for plan in plans)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="budgets") as pool:
        pending = deque([pool.submit(_budgets_on, context, plans[0], device)])
        for plan in [*plans[1:], None]:
            if plan is not None:
                pending.append(pool.submit(_budgets_on, context, plan, device))
            yield pending.popleft().result()


def _budgets_on(
    context: AllocationContext, plan: MakePlan, device: torch.device
) -> dict[str, LinearBudget]:
    """Return the budgets of a plan with counts on `device`, copied together for all linears."""
    budgets = context.budgets(plan())
    counts = torch.cat([budget.counts for budget in budgets.values()]).to(device)
    parts = counts.split([len(budget.counts) for budget in budgets.values()])
    return {
        key: dataclasses.replace(budget, counts=part)
        for (key, budget), part in zip(budgets.items(), parts, strict=True)
    }


def _sort_key(index: int, criterion: float) -> tuple[float, int]:
    """Return a key that sorts the winner first; NaN (rules=reference) wins only as candidate 0."""
    if math.isnan(criterion):
        criterion = -math.inf if index == 0 else math.inf
    return criterion, index
