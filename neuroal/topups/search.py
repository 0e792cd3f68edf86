"""Try a list of candidates on the search windows and keep the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from neuroal.plan import SparsityPlan
from neuroal.pruners.budget import Allotment
from neuroal.topups.base import AllocationContext
from neuroal.topups.spread import SpreadCriterion


class Outcome(Protocol):
    """What came of a candidate; the lower the criterion, the better."""

    @property
    def criterion(self) -> float: ...


class Criterion(Protocol):
    """Measures candidates, given as numbers of zeros; the model is left dense."""

    def measure(self, allotments: Mapping[str, Allotment]) -> Outcome: ...


@dataclass(frozen=True, eq=False)
class Choice:
    """The best candidate, and the criteria of all.

    Attributes:
        winner: index of the candidate.
        plan: made from it.
        outcome: what the criterion made of that plan.
        criteria: of every candidate, in order.
    """

    winner: int
    plan: SparsityPlan
    outcome: Outcome
    criteria: list[float]

    def report(self, step: str, candidates: Sequence[float]) -> dict[str, Any]:
        """For `Allocation.report`, under names that end in `step`."""
        return {
            f"lambda_{step}": candidates[self.winner],
            f"candidates_{step}": list(candidates),
            f"criterion_{step}": self.criteria,
        }


def choose(
    context: AllocationContext,
    criterion: Criterion,
    candidates: Sequence[float],
    make: Callable[[float], SparsityPlan],
    name: str,
) -> Choice:
    """Measure the plan of every candidate; the lowest criterion wins, the first on ties.

    Args:
        context: what the plans are for.
        criterion: measures them.
        candidates: at least one.
        make: plan of a candidate.
        name: of the stage, for progress.
    """
    criteria: list[float] = []
    winner = 0
    plans = [make(candidate) for candidate in candidates]
    outcomes = measured(criterion, (context.allot(plan) for plan in plans))
    with context.progress.stage(name, len(candidates), "candidate") as step:
        for index, (candidate, outcome) in enumerate(zip(candidates, outcomes, strict=True)):
            criteria.append(outcome.criterion)
            # A NaN (rules=reference) is never smaller, so the first candidate stays.
            if index == 0 or outcome.criterion < criteria[winner]:
                winner, best = index, outcome
            step.advance(1, candidate=candidate, criterion=outcome.criterion)
    return Choice(winner, plans[winner], best, criteria)


def measured(
    criterion: Criterion, allotments: Iterable[Mapping[str, Allotment]]
) -> Iterator[Outcome]:
    """The outcomes of all candidates in order; several at once where the criterion can."""
    if isinstance(criterion, SpreadCriterion):
        yield from criterion.measure_all(allotments)
    else:
        yield from map(criterion.measure, allotments)
