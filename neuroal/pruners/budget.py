"""From a plan's ratios to numbers of zeros: the one place of each budget rule.

``exact``: the plan is shifted so that the whole model gets K = round(s·numel) zeros, whatever
method made it, and rounding is carried from row to row. This makes methods comparable.

``reference``: the NeuroAL authors' roundings, to the letter. A linear with one ratio s loses the
⌊s·cols⌋ lowest scores of every row ("row" granularity); one with a ratio per row keeps the
⌊(1−s_r)·cols⌋ highest of each ("neuron" granularity). The total drifts (0.693 … 0.705 at 0.70).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.plan import Ratio, SparsityPlan
from neuroal.pruners.patterns import Pattern, nearest_patterns

BISECTION_STEPS = 100
NEAR = 2.0**-48
"""Newton's steps end where the rounding of a sum over all rows begins."""
NARROW = 2.0**-50
"""Of a bracket: less than the rounding of a ratio tells apart lies between its ends then."""


class Rules(StrEnum):
    """Whose roundings and corner cases hold; section by section where they differ."""

    EXACT = "exact"
    REFERENCE = "reference"


@dataclass(frozen=True, eq=False)
class Allotment:
    """What one linear has to give up.

    Attributes:
        counts: zeros of each row: (rows,) int64.
        ratio: the plan's nominal ratio.
        rules: whose rules the pruner must follow.
        pattern: how many of every few consecutive columns stay; None: any columns may go.
    """

    counts: Tensor
    ratio: Ratio
    rules: Rules
    pattern: Pattern | None = None

    @property
    def ties_to_higher(self) -> bool:
        """The reference's "neuron" granularity sorts downwards, so a tie keeps the lower column."""
        return self.rules is Rules.REFERENCE and isinstance(self.ratio, Tensor)


def total_zeros(sparsity: float, numel: int) -> int:
    """K = round(s·numel), halves up."""
    return int(sparsity * numel + 0.5)


def allot(
    plan: SparsityPlan, subject: DecoderModel, rules: Rules, group: int | None = None
) -> dict[str, Allotment]:
    """Numbers of zeros for every row of every prunable linear of `subject`.

    With a `group` of M columns every block gets a pattern N:M of its own (`nearest_patterns`).

    Raises:
        UserError: the plan does not cover just the linears of the model, or a ratio per row does
            not have the linear's number of rows, or is asked to be a pattern.
    """
    shapes = {linear.key: (linear.rows, linear.cols) for linear in subject}
    check_coverage(plan, shapes)
    if group is not None:
        return _pattern_allotments(plan, subject, rules, group)
    if rules is Rules.REFERENCE:
        counts = {key: _reference_counts(plan.ratios[key], *shapes[key]) for key in shapes}
    else:
        counts = exact_counts(plan.ratios, shapes, plan.sparsity)
    return {key: Allotment(counts[key], plan.ratios[key], rules) for key in shapes}


def check_coverage(plan: SparsityPlan, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise `UserError` unless the plan names just these linears, with fitting sizes."""
    missing, foreign = shapes.keys() - plan.ratios.keys(), plan.ratios.keys() - shapes.keys()
    if missing or foreign:
        what = f"lacks '{min(missing)}'" if missing else f"names '{min(foreign)}', not in the model"
        raise UserError(f"plan: {what}; a plan belongs to one architecture and include/exclude")
    for key, (rows, _) in shapes.items():
        ratio = plan.ratios[key]
        if isinstance(ratio, Tensor) and ratio.shape != (rows,):
            raise UserError(f"plan: '{key}' has {len(ratio)} row ratios for {rows} rows")


def _reference_counts(ratio: Ratio, rows: int, cols: int) -> Tensor:
    if isinstance(ratio, Tensor):
        kept = ((1 - ratio.double()) * cols).floor().long()
        return (cols - kept).clamp(0, cols)
    return torch.full((rows,), int(ratio * cols))


def _pattern_allotments(
    plan: SparsityPlan, subject: DecoderModel, rules: Rules, group: int
) -> dict[str, Allotment]:
    if plan.per_row():
        raise UserError(
            f"sparsity.of={group}: a pattern has one N a block, but the plan has ratios per row; "
            "use topup.step=block, or a plan without rows"
        )
    shapes = {linear.key: (linear.rows, linear.cols) for linear in subject}
    shift, highest = _shift(plan.ratios, shapes, plan.sparsity)
    densities = {
        key: 1 - min(max(float(ratio) + shift, 0.0), highest) for key, ratio in plan.ratios.items()
    }
    blocks = {linear.key: linear.block for linear in subject}
    kept = subject.numel - total_zeros(plan.sparsity, subject.numel)
    patterns = nearest_patterns(densities, shapes, blocks, group, kept)
    return {
        key: Allotment(
            torch.full((rows,), cols - patterns[key].kept(cols)),
            plan.ratios[key],
            rules,
            patterns[key],
        )
        for key, (rows, cols) in shapes.items()
    }


def exact_counts(
    ratios: Mapping[str, Ratio], shapes: Mapping[str, tuple[int, int]], sparsity: float
) -> dict[str, Tensor]:
    """Counts per row that sum to K = round(s·numel) over all linears.

    Finds c by bisection with Σ clip(s_r + c, 0, max(0.99, s))·cols_r = K, then walks all rows in
    the order of `shapes` with the running sum C of these products:
    k_r = ⌊C_r + ½⌋ − ⌊C_{r−1} + ½⌋.

    Args:
        ratios: nominal ratio(s) of each linear.
        shapes: (rows, cols) of each linear, in block and list order.
        sparsity: s.

    Returns:
        int64 counts (rows,) of each linear.
    """
    shift, highest = _shift(ratios, shapes, sparsity)
    total = total_zeros(sparsity, sum(rows * cols for rows, cols in shapes.values()))
    per_row = []
    for key, (rows, cols) in shapes.items():
        ratio = torch.as_tensor(ratios[key], dtype=torch.float64) + shift
        per_row.append(ratio.clamp_(0, highest).mul_(cols).expand(rows))
    running = torch.cat(per_row).cumsum_(0)
    running[-1] = total
    rounded = running.add_(0.5).floor_().long()
    counts = rounded.diff(prepend=rounded.new_zeros(1))
    return dict(zip(shapes, counts.split([rows for rows, _ in shapes.values()]), strict=True))


def _shift(
    ratios: Mapping[str, Ratio], shapes: Mapping[str, tuple[int, int]], sparsity: float
) -> tuple[float, float]:
    """The c of `exact_counts`, and the highest ratio it may lead to."""
    total = total_zeros(sparsity, sum(rows * cols for rows, cols in shapes.values()))
    highest = max(0.99, sparsity)
    values, weights = _grouped(ratios, shapes)
    least, most, everything = float(values.min()), float(values.max()), float(weights.sum())
    low, high = -most, highest - least
    guess, ratio = 0.0, torch.empty_like(values)
    for _ in range(BISECTION_STEPS):
        shift = guess if low < guess < high else (low + high) / 2
        torch.add(values, shift, out=ratio).clamp_(0, highest)
        slope = everything
        if least + shift <= 0 or most + shift >= highest:
            slope = float(((ratio > 0) & (ratio < highest)).to(weights.dtype) @ weights)
        missing = total - float(ratio.mul_(weights).sum())
        if missing > 0:
            low = shift
        else:
            high = shift
        if high - low <= NARROW:
            break
        if high - low <= NEAR:
            guess = math.nan
            continue
        # The sum is piecewise linear in the shift, so Newton's steps reach the bend they look for;
        # going a little too far brings the other end of the bracket near, too.
        guess = shift + missing / slope if slope else math.nan
        guess += math.copysign(NEAR / 4, missing)
    # The least shift that reaches the total, so ratios that already do stay as they are.
    return high, highest


def _grouped(
    ratios: Mapping[str, Ratio], shapes: Mapping[str, tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Ratios with the number of weights that each stands for: a row's, or a whole linear's."""
    values, weights = [], []
    for key, (rows, cols) in shapes.items():
        ratio = torch.as_tensor(ratios[key], dtype=torch.float64).reshape(-1)
        values.append(ratio)
        weights.append(torch.full_like(ratio, rows * cols / len(ratio)))
    return torch.cat(values), torch.cat(weights)
