"""Evaluate candidates one after another, or each on the next free of several devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import torch
from torch import Tensor

from neuroal.execution.runner import BlockRunner
from neuroal.kernels.async_copy import moved_together
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.group import DeviceGroup
from neuroal.parallel.replicated import group_of
from neuroal.pruners.settings import PruningSettings
from neuroal.search.context import AllocationContext
from neuroal.search.criteria.base import CandidateResult, Criterion
from neuroal.search.criteria.make import make_criterion
from neuroal.sparsity.budget import LinearBudget, on_device
from neuroal.sparsity.plan import SparsityPlan
from neuroal.tracking.progress import QuietProgress

CPU = torch.device("cpu")
MakePlan = Callable[[AllocationContext, float], SparsityPlan]
"""Builds the plan of a candidate on demand, because row plans are large and slow to build."""
Claim = Callable[[], int]
"""Takes the next piece of work of several devices (`neuroal.parallel.worker.claims`)."""


@dataclass(frozen=True, eq=False)
class SharedSearch:
    """What another device needs to evaluate candidates as the first one does.

    Attributes:
        criterion: name of the criterion (`make_criterion`).
        key: identifies the search; a device keeps its criterion for all candidates of one search.
    """

    criterion: str
    settings: PruningSettings
    tokens: Tensor
    batch: int
    key: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates to evaluate: the values `values[index]` for each index in `order`.

    `differences`: whether the δ of the best of them will be used.
    """

    make: MakePlan
    values: Sequence[float]
    order: Sequence[int]
    differences: bool = False


def shared_search(context: AllocationContext, criterion: str) -> SharedSearch | None:
    """Return a search that the other devices of the model start to prepare; None: there are none.

    They embed the windows while the first device does so.
    """
    group = group_of(context.decoder.model)
    if group is None:
        return None
    search = SharedSearch(criterion, context.settings, context.tokens, context.batch)
    group.post(prepared, context.decoder, (search,))
    return search


def evaluated(
    context: AllocationContext,
    criterion: Criterion,
    candidates: Candidates,
    order: Iterable[int],
    *,
    ahead: bool = True,
) -> Iterator[tuple[int, CandidateResult]]:
    """Yield the results of the candidates in `order`, by their indices.

    With `ahead`, the next index is taken while a candidate is evaluated.
    """
    indices: list[int] = []

    def plans() -> Iterator[Callable[[], SparsityPlan]]:
        for index in order:
            indices.append(index)
            yield partial(candidates.make, context, candidates.values[index])

    for budgets in budgets_of(context, plans(), ahead=ahead):
        result = criterion.evaluate(budgets)
        if not candidates.differences:
            result = CandidateResult(result.criterion)
        yield indices.pop(0), result


def evaluated_by_all(
    group: DeviceGroup,
    context: AllocationContext,
    criterion: Criterion,
    candidates: Candidates,
    search: SharedSearch,
) -> Iterator[tuple[int, CandidateResult]]:
    """Yield the results of all candidates, in their order, each from the next free device.

    Each device does what a single one would do with its candidates, in a process of its own: it
    builds the plans and budgets, compiles the blocks and runs all windows in the same batches. The
    results therefore do not depend on the number of devices.
    """
    results: dict[int, CandidateResult] = {}
    waiting = list(candidates.order)

    def local(claim: Claim) -> Iterator[tuple[int, CandidateResult]]:
        return _claimed(context, criterion, candidates, claim, group.size)

    arguments = (search, candidates, group.size)
    for index, result in group.stream(on_other_device, context.decoder, arguments, local):
        results[index] = result
        while waiting and waiting[0] in results:
            yield waiting[0], results.pop(waiting.pop(0))


def on_other_device(
    decoder: DecoderModel, claim: Claim, search: SharedSearch, candidates: Candidates, devices: int
) -> Iterator[tuple[int, CandidateResult]]:
    """Yield index and result of the candidates that this device evaluates.

    The δ of a result are on the CPU. They are omitted if an earlier result is at least as good.
    """
    context, criterion = prepared(decoder, search)
    best = math.inf
    for index, result in _claimed(context, criterion, candidates, claim, devices):
        may_win = not result.criterion >= best  # NaN may win with rules=reference
        best = min(best, result.criterion)
        if result.differences is not None:
            differences = moved_together(result.differences, CPU) if may_win else None
            result = CandidateResult(result.criterion, differences)
        yield index, result


def prepared(decoder: DecoderModel, search: SharedSearch) -> tuple[AllocationContext, Criterion]:
    """Return the context and the criterion of `search` on this device, made once per search."""
    if decoder.memo.get("stream", (None,))[0] != search.key:
        decoder.memo.pop("stream", None)  # frees the memory of the last search first
        settings, tokens, batch = search.settings, search.tokens, search.batch
        context = AllocationContext(decoder, settings, tokens, batch, QuietProgress())
        runner = BlockRunner.capture(decoder, tokens, batch)
        criterion = make_criterion(search.criterion, context, runner)
        decoder.memo["stream"] = search.key, context, criterion
    _, context, criterion = decoder.memo["stream"]
    return context, criterion


def _claimed(
    context: AllocationContext,
    criterion: Criterion,
    candidates: Candidates,
    claim: Claim,
    devices: int,
) -> Iterator[tuple[int, CandidateResult]]:
    """Yield the results of the candidates that this device claims.

    It claims one candidate ahead, to prepare its budgets, unless another device would then have
    none: with k candidates for n equal devices, this takes ⌈k/n⌉ rounds.
    """
    count = len(candidates.order)

    def order() -> Iterator[int]:
        while (position := claim()) < count:
            yield candidates.order[position]

    return evaluated(context, criterion, candidates, order(), ahead=count > devices)


def budgets_of(
    context: AllocationContext,
    plans: Iterable[Callable[[], SparsityPlan]],
    *,
    ahead: bool = True,
) -> Iterator[dict[str, LinearBudget]]:
    """Yield the budgets of each plan, prepared while a GPU evaluates the previous one."""
    device = context.decoder.device
    if device.type != "cuda":
        yield from (context.budgets(plan()) for plan in plans)
        return
    remaining = iter(plans)

    def budgets(plan: Callable[[], SparsityPlan]) -> dict[str, LinearBudget]:
        return on_device(context.budgets(plan()), device)

    with ThreadPoolExecutor(1, thread_name_prefix="budgets") as pool:

        def prepare() -> Future[dict[str, LinearBudget]] | None:
            plan = next(remaining, None)
            return None if plan is None else pool.submit(budgets, plan)

        current = prepare()
        while current is not None:
            following = prepare() if ahead else None
            yield current.result()
            current = following or prepare()
