"""Try a list of candidates on the search windows and keep the best."""

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

from neuroal.plan import SparsityPlan
from neuroal.pruners.budget import Allotment, Rules
from neuroal.topups.base import AllocationContext
from neuroal.topups.outcome import Criterion, Outcome
from neuroal.topups.ranking import around_best, finalists
from neuroal.topups.spread import SpreadCriterion

SEARCHES = ("exact", "early_out", "adaptive")

MakePlan = Callable[[], SparsityPlan]
"""Plans of rows take as long to make and as much room as their numbers of zeros: one at a time."""


@dataclass(frozen=True, eq=False)
class Known:
    """What was measured before: numbers of zeros, what came of them, and on shortened windows."""

    allotments: Mapping[str, Allotment]
    outcome: Outcome
    rank: float | None = None

    def covers(self, allotments: Mapping[str, Allotment]) -> bool:
        """Whether `allotments` lead to the same masks under a pruner that keeps weights."""
        return all(
            torch.equal(mine.counts, theirs.counts.to(mine.counts.device))
            and mine.ties_to_higher == theirs.ties_to_higher
            and mine.pattern == theirs.pattern
            for mine, theirs in ((self.allotments[key], allotments[key]) for key in allotments)
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """The best candidate, and the criteria of all.

    Attributes:
        winner: index of the candidate.
        plan: made from it.
        outcome: what the criterion made of that plan.
        criteria: of every candidate, in order; None where it was given up or left out.
        partial: what was known when a candidate was given up; None for the others.
        ranking: criteria on the shortened windows of an adaptive search, None where it did not
            look; else None.
    """

    winner: int
    plan: SparsityPlan
    outcome: Outcome
    criteria: list[float | None]
    partial: list[float | None]
    ranking: list[float | None] | None = None

    @property
    def rank(self) -> float | None:
        """Of the winner."""
        return None if self.ranking is None else self.ranking[self.winner]

    def report(self, step: str, candidates: Sequence[float]) -> dict[str, Any]:
        """For `Allocation.report`, under names that end in `step`."""
        found: dict[str, Any] = {
            f"lambda_{step}": candidates[self.winner],
            f"candidates_{step}": list(candidates),
            f"criterion_{step}": self.criteria,
        }
        if None in self.criteria:
            found[f"partial_{step}"] = self.partial
        if self.ranking is not None:
            found[f"ranking_{step}"] = self.ranking
        return found


def choose(
    context: AllocationContext,
    criterion: Criterion,
    candidates: Sequence[float],
    make: Callable[[float], SparsityPlan],
    name: str,
    *,
    search: str = "exact",
    known: Known | None = None,
    ranking: Criterion | None = None,
) -> Choice:
    """Measure the plans of the candidates; the lowest criterion wins, the first on ties.

    Args:
        context: what the plans are for.
        criterion: measures them.
        candidates: at least one.
        make: plan of a candidate.
        name: of the stage, for progress.
        search: ``exact`` measures all; ``early_out`` gives a candidate up once it has lost, which
            changes no winner; ``adaptive`` also leaves out those that shortened windows say will
            not win (`finalists`).
        known: need not be measured again if the first candidate comes to the same zeros.
        ranking: the criterion on shortened windows.
    """
    plans = [partial(make, candidate) for candidate in candidates]
    outcomes: dict[int, Outcome] = {}
    ranked: dict[int, float] = {}
    if known is not None and known.covers(context.allot(plans[0]())):
        outcomes[0] = known.outcome
        if known.rank is not None:
            ranked[0] = known.rank
    ranks: dict[int, float] | None = None
    # (Under the reference's rules the first candidate may win by its NaN, which has no rank.)
    if search == "adaptive" and ranking is not None and context.rules is Rules.EXACT:
        ranks = around_best(len(plans), partial(_ranked, context, ranking, plans, ranked))
    order = _order(candidates, search, context.rules, ranks)
    order = [index for index in order if index not in outcomes]
    with context.progress.stage(name, len(outcomes) + len(order), "candidate") as step:
        for index, outcome in outcomes.items():
            step.advance(1, candidate=candidates[index], criterion=outcome.criterion)
        best = min((outcome.criterion for outcome in outcomes.values()), default=math.inf)
        bound = None if search == "exact" else best
        for index, outcome in _outcomes(context, criterion, plans, order, bound):
            outcomes[index] = outcome
            step.advance(1, candidate=candidates[index], criterion=outcome.criterion)
    winner = min(outcomes, key=lambda index: _place(index, outcomes[index]))
    values = [outcomes.get(index) for index in range(len(plans))]
    return Choice(
        winner,
        plans[winner](),
        outcomes[winner],
        [found.criterion if found and found.complete else None for found in values],
        [found.criterion if found and not found.complete else None for found in values],
        None if ranks is None else [ranks.get(index) for index in range(len(plans))],
    )


def _ranked(
    context: AllocationContext,
    ranking: Criterion,
    plans: Sequence[MakePlan],
    known: Mapping[int, float],
    indices: Sequence[int],
) -> list[float]:
    """Criteria of some plans on shortened windows, but for those that are `known`."""
    wanted = [index for index in indices if index not in known]
    allotments = _allotted(context, [plans[index] for index in wanted])
    measured = (ranking.measure(zeros).criterion for zeros in allotments)
    found = {**known, **dict(zip(wanted, measured, strict=True))}
    return [found[index] for index in indices]


def _order(
    candidates: Sequence[float],
    search: str,
    rules: Rules,
    ranks: Mapping[int, float] | None,
) -> list[int]:
    """Which candidates are measured, and when: likely winners first where the others may go."""
    count = len(candidates)
    if ranks is not None:
        return finalists(candidates, ranks)
    if search == "exact" or rules is Rules.REFERENCE:
        return list(range(count))
    return sorted(range(count), key=lambda i: abs(i - 2 * count / 3))


def _outcomes(
    context: AllocationContext,
    criterion: Criterion,
    plans: Sequence[MakePlan],
    order: Sequence[int],
    bound: float | None,
) -> Iterator[tuple[int, Outcome]]:
    """What comes of the candidates; given up where they exceed the best so far, if `bound` is."""
    allotments = _allotted(context, [plans[index] for index in order])
    if isinstance(criterion, SpreadCriterion):
        yield from zip(order, criterion.measure_all(allotments), strict=True)
        return
    for index, zeros in zip(order, allotments, strict=True):
        outcome = criterion.measure(zeros, math.inf if bound is None else bound)
        if bound is not None and outcome.complete and not outcome.criterion >= bound:
            bound = outcome.criterion
        yield index, outcome


def _allotted(
    context: AllocationContext, plans: Sequence[MakePlan]
) -> Iterator[dict[str, Allotment]]:
    """What each plan comes to; for a GPU, worked out and sent there while it measures the last."""
    device = context.subject.device
    if not plans:
        return
    if device.type != "cuda" or len(context.devices) > 1:
        yield from (context.allot(plan()) for plan in plans)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="allotments") as pool:
        coming = deque([pool.submit(_allot_on, context, plans[0], device)])
        for plan in [*plans[1:], None]:
            if plan is not None:
                coming.append(pool.submit(_allot_on, context, plan, device))
            yield coming.popleft().result()


def _allot_on(
    context: AllocationContext, plan: MakePlan, device: torch.device
) -> dict[str, Allotment]:
    allotments = context.allot(plan())
    counts = torch.cat([allotment.counts for allotment in allotments.values()]).to(device)
    parts = counts.split([len(allotment.counts) for allotment in allotments.values()])
    return {
        key: dataclasses.replace(allotment, counts=part)
        for (key, allotment), part in zip(allotments.items(), parts, strict=True)
    }


def _place(index: int, outcome: Outcome) -> tuple[bool, float, int]:
    """What the winner has least of. A NaN (rules=reference) wins only as the first candidate."""
    criterion = outcome.criterion
    if math.isnan(criterion):
        criterion = -math.inf if index == 0 else math.inf
    return (not outcome.complete, criterion, index)
