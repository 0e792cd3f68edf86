"""Convert the ratios of a plan to counts of zeros.

``exact``: a common shift of all ratios gives the whole model K = round(s·numel) zeros, and the
rounding error is carried from row to row. All methods get the same number of zeros, so their
results are comparable.

``reference``: the roundings of the NeuroAL authors' code. A linear with one ratio s loses the
⌊s·cols⌋ lowest scores of every row ("row" granularity). A linear with one ratio per row keeps the
⌊(1−s_r)·cols⌋ highest scores of every row ("neuron" granularity). The total sparsity varies
(0.693 … 0.705 at a nominal 0.70).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroal.config.schema import Rules as Rules  # part of this module's interface
from neuroal.errors import UserError
from neuroal.kernels.async_copy import moved_together
from neuroal.models.adapter import DecoderModel
from neuroal.sparsity.patterns import Pattern, nearest_patterns
from neuroal.sparsity.plan import Ratio, SparsityPlan

Shapes = Mapping[str, tuple[int, int]]
"""(rows, cols) of every linear, by key, in block and list order."""
MAX_STEPS = 100
NEWTON_WIDTH = 2.0**-48
"""Bracket width below which rounding errors of the total make Newton steps unreliable."""
FINAL_WIDTH = 2.0**-50
"""Bracket width below which both ends round to the same ratio."""


@dataclass(frozen=True, eq=False)
class LinearBudget:
    """The zeros of one linear.

    Attributes:
        counts: zeros of each row, (rows,) int64.
        ratio: nominal ratio(s) of the plan.
        rules: budget rules that the pruner must follow.
        pattern: N:M pattern of the mask; None: unstructured.
    """

    counts: Tensor
    ratio: Ratio
    rules: Rules
    pattern: Pattern | None = None

    @property
    def ties_to_higher(self) -> bool:
        """Whether a tie prunes the higher column, as the reference's "neuron" granularity does."""
        return self.rules is Rules.REFERENCE and isinstance(self.ratio, Tensor)

    def met_by(self, mask: Tensor) -> Tensor:
        """Return whether every row, or every group of a pattern, of `mask` has its zeros.

        The result is a () bool on the device of `mask`, (rows, cols) bool.
        """
        if self.pattern is not None:
            return self.pattern.holds(mask)
        zeros = mask.view(torch.uint8).sum(1, dtype=torch.int32)  # faster than a sum of bools
        return (zeros == self.counts.to(mask.device, non_blocking=True)).all()


def total_zeros(sparsity: float, numel: int) -> int:
    """Return K = round(s·numel), with halves rounded up."""
    return int(sparsity * numel + 0.5)


def linear_budgets(
    plan: SparsityPlan, decoder: DecoderModel, rules: Rules, group: int | None = None
) -> dict[str, LinearBudget]:
    """Return the zeros of every row of every prunable linear of `decoder`, by linear.

    With a `group` of M columns, every block gets its own N:M pattern (`nearest_patterns`).

    Raises:
        UserError: the plan names other linears or rows than the model has, or row ratios are
            combined with a `group`.
    """
    shapes = {linear.key: (linear.rows, linear.cols) for linear in decoder}
    check_coverage(plan, shapes)
    plan = plan.in_order(shapes)  # a file lists its linears in another order than the model
    if group is not None:
        return _pattern_budgets(plan, decoder, shapes, rules, group)
    if rules is Rules.REFERENCE:
        counts = {key: _reference_counts(plan.ratios[key], *shapes[key]) for key in shapes}
    else:
        counts = exact_counts(plan.ratios, shapes, plan.sparsity)
    return {key: LinearBudget(counts[key], plan.ratios[key], rules) for key in shapes}


def check_coverage(plan: SparsityPlan, shapes: Shapes) -> None:
    """Raise `UserError` unless the plan has ratios of the right shape for exactly these linears."""
    missing, foreign = shapes.keys() - plan.ratios.keys(), plan.ratios.keys() - shapes.keys()
    if missing or foreign:
        what = f"lacks '{min(missing)}'" if missing else f"names '{min(foreign)}', not in the model"
        raise UserError(
            f"plan: {what}; use a plan for this architecture with the same model.include and "
            "model.exclude"
        )
    for key, (rows, _) in shapes.items():
        ratio = plan.ratios[key]
        if isinstance(ratio, Tensor) and ratio.shape != (rows,):
            count = len(ratio) if ratio.dim() == 1 else f"a tensor of shape {tuple(ratio.shape)} as"
            raise UserError(
                f"plan: '{key}' has {count} row ratios for {rows} rows; use a plan for this "
                "architecture"
            )


def _reference_counts(ratio: Ratio, rows: int, cols: int) -> Tensor:
    if isinstance(ratio, Tensor):
        remaining = ((1 - ratio.double()) * cols).floor().long()
        return (cols - remaining).clamp(0, cols)
    return torch.full((rows,), int(ratio * cols))


def _pattern_budgets(
    plan: SparsityPlan, decoder: DecoderModel, shapes: Shapes, rules: Rules, group: int
) -> dict[str, LinearBudget]:
    if plan.per_row():
        raise UserError(
            f"sparsity.of={group}: a pattern has one N for a whole linear, but the plan has ratios "
            "per row; use topup.step=block, or a plan without ratios per row"
        )
    shift, highest = _shift(plan.ratios, shapes, plan.sparsity)
    densities = {
        key: 1 - min(max(float(ratio) + shift, 0.0), highest) for key, ratio in plan.ratios.items()
    }
    blocks = {linear.key: linear.block for linear in decoder}
    remaining = decoder.numel - total_zeros(plan.sparsity, decoder.numel)
    patterns = nearest_patterns(densities, shapes, blocks, group, remaining)
    budgets = {}
    for key, (rows, cols) in shapes.items():
        counts = torch.full((rows,), cols - patterns[key].remaining(cols))
        budgets[key] = LinearBudget(counts, plan.ratios[key], rules, patterns[key])
    return budgets


def exact_counts(ratios: Mapping[str, Ratio], shapes: Shapes, sparsity: float) -> dict[str, Tensor]:
    """Return the counts (rows,) int64 of each linear, with sum K = round(s·numel) over all linears.

    A common shift c solves Σ_r clip(s_r + c, 0, max(0.99, s))·cols_r = K. With C_r the running sum
    of these products over all rows, in the order of `shapes`, row r gets
    k_r = ⌊C_r + ½⌋ − ⌊C_{r−1} + ½⌋ zeros.
    """
    shift, highest = _shift(ratios, shapes, sparsity)
    heights = [rows for rows, _ in shapes.values()]
    # In place: a row plan has millions of ratios, whose first use of new memory takes longest.
    running = torch.empty(sum(heights), dtype=torch.float64)
    for (key, (_, cols)), part in zip(shapes.items(), running.split(heights), strict=True):
        ratio = torch.as_tensor(ratios[key], dtype=torch.float64)
        part.copy_(ratio).add_(shift).clamp_(0, highest).mul_(cols)
    running.cumsum_(0)
    running[-1] = total_zeros(sparsity, sum(rows * cols for rows, cols in shapes.values()))
    rounded = running.add_(0.5).floor_().numpy()
    counts = torch.empty(len(rounded), dtype=torch.int64)
    counts[0] = int(rounded[0])
    np.subtract(rounded[1:], rounded[:-1], out=counts.numpy()[1:], casting="unsafe")
    return dict(zip(shapes, counts.split(heights), strict=True))


def on_device(budgets: Mapping[str, LinearBudget], device: torch.device) -> dict[str, LinearBudget]:
    """Return `budgets` with their counts on `device`, copied together."""
    counts = moved_together({key: budget.counts for key, budget in budgets.items()}, device)
    return {key: dataclasses.replace(budget, counts=counts[key]) for key, budget in budgets.items()}


def _shift(ratios: Mapping[str, Ratio], shapes: Shapes, sparsity: float) -> tuple[float, float]:
    """Return the shift c of `exact_counts` and the upper bound of the shifted ratios.

    The shift lies between `low`, which gives too few zeros, and `high`. Each step evaluates the
    Newton estimate, or the midpoint if the estimate lies outside of the bracket or is unreliable.
    """
    total = total_zeros(sparsity, sum(rows * cols for rows, cols in shapes.values()))
    highest = max(0.99, sparsity)
    zeros = _ShiftedZeros(ratios, shapes, highest)
    low, high = zeros.bracket()
    estimate = 0.0
    for _ in range(MAX_STEPS):
        shift = estimate if low < estimate < high else (low + high) / 2
        count, slope = zeros.evaluate(shift)
        missing = total - count
        if missing > 0:
            low = shift
        else:
            high = shift
        if high - low <= FINAL_WIDTH:
            break
        if slope and high - low > NEWTON_WIDTH:
            # Going slightly past the root brings the other end of the bracket close to it as well.
            estimate = shift + missing / slope + math.copysign(NEWTON_WIDTH / 4, missing)
        else:
            estimate = (low + high) / 2
    # The least shift that reaches the total, so that ratios that already reach it do not change.
    return high, highest


class _ShiftedZeros:
    """Z(c) = Σ_i clip(s_i + c, 0, highest)·w_i, which is piecewise linear in the shift c.

    s are the ratios of all linears or rows, and w the numbers of weights that each applies to.
    NumPy adds them in one thread, so that the budgets do not depend on the number of threads.
    """

    def __init__(self, ratios: Mapping[str, Ratio], shapes: Shapes, highest: float) -> None:
        values = [torch.as_tensor(ratios[key], dtype=torch.float64).reshape(-1) for key in shapes]
        self._ratios, self._highest = torch.cat(values).numpy(), highest
        self._least, self._most = float(self._ratios.min()), float(self._ratios.max())
        self._shifted = np.empty_like(self._ratios)  # one buffer: a row plan has millions of ratios
        self._parts: list[tuple[slice, float]] = []
        """The ratios of each linear, and the number of weights that each of them applies to."""
        begin = 0
        for (rows, cols), value in zip(shapes.values(), values, strict=True):
            part = slice(begin, begin + len(value))
            self._parts.append((part, rows * cols / len(value)))
            begin = part.stop
        self._total_weight = float(sum(rows * cols for rows, cols in shapes.values()))

    def bracket(self) -> tuple[float, float]:
        """Return the shifts at which all ratios reach 0 and `highest`."""
        return -self._most, self._highest - self._least

    def evaluate(self, shift: float) -> tuple[float, float]:
        """Return Z(shift) and the slope there."""
        shifted = np.add(self._ratios, shift, out=self._shifted)
        slope = self._total_weight
        if self._least + shift <= 0 or self._most + shift >= self._highest:
            np.clip(shifted, 0, self._highest, out=shifted)
            inside = (shifted > 0) & (shifted < self._highest)
            slope = sum(np.count_nonzero(inside[part]) * weight for part, weight in self._parts)
        for part, weight in self._parts:
            shifted[part] *= weight
        return float(shifted.sum()), slope
