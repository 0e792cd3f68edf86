"""Try a list of candidates on the search windows and keep the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from neuroal.plan import SparsityPlan
from neuroal.pruners.budget import Allotment
from neuroal.topups.base import AllocationContext


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
    with context.progress.stage(name, len(candidates), "candidate") as step:
        for index, candidate in enumerate(candidates):
            plan = make(candidate)
            outcome = criterion.measure(context.allot(plan))
            criteria.append(outcome.criterion)
            # A NaN (rules=reference) is never smaller, so the first candidate stays.
            if index == 0 or outcome.criterion < criteria[winner]:
                winner, best_plan, best = index, plan, outcome
            step.advance(1, candidate=candidate, criterion=outcome.criterion)
    return Choice(winner, best_plan, best, criteria)
