"""Rows of different length count by their weights when costs and budgets are averaged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuroal.gradients.row_sparsity import HIGHEST, LOWEST, RowSparsity, duration

SHAPES = {"a": (2, 1), "b": (1, 6)}


def rows(sparsity: list[float], zeros: int = 4) -> RowSparsity:
    """Return two rows of one column and a row of six."""
    return RowSparsity(SHAPES, vector([1, 1, 6]), vector(sparsity), zeros)


def vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_costs_are_standardised_over_weights_and_not_over_rows() -> None:
    z, variation = rows([0.5] * 3).standardised(vector([0.0, 0.0, 4.0]))
    deviation = math.sqrt((2 * 9 + 6 * 1) / 8)  # around the mean 3
    assert z.tolist() == pytest.approx([-3 / deviation, -3 / deviation, 1 / deviation])
    assert variation == pytest.approx(deviation / 3)
    assert rows([0.5] * 3).standardised(vector([0.0, 0.0, -4.0]))[1] == variation  # of |mean|


def test_standardised_costs_are_clipped_at_three_deviations() -> None:
    many = RowSparsity({"a": (20, 1)}, torch.ones(20).double(), torch.ones(20).double() / 2, 10)
    z, _ = many.standardised(vector([0.0] * 19 + [100.0]))
    assert float(z[-1]) == 3.0
    assert float(-many.standardised(vector([0.0] * 19 + [-100.0]))[0][-1]) == 3.0


def test_equal_costs_move_nothing() -> None:
    z, variation = rows([0.5] * 3).standardised(vector([2.0, 2.0, 2.0]))
    assert (z.tolist(), variation) == ([0.0, 0.0, 0.0], 0.0)
    assert rows([0.5] * 3).standardised(vector([-3.0, 0.0, 0.5]))[1] == math.inf  # of mean 0


def test_a_move_shifts_all_rows_equally_to_the_budget() -> None:
    moved = rows([0.5, 0.5, 0.5])
    moved.move(vector([0.2, 0.0, 0.1]))  # 0.8 zeros more, over 8 columns
    assert moved.sparsity.tolist() == pytest.approx([0.6, 0.4, 0.5])


def test_rows_at_a_bound_leave_the_shift_to_the_others() -> None:
    moved = rows([0.9, 0.5, 0.5], zeros=5)
    moved.move(vector([0.5, -0.7, 0.0]))
    # The second and third row start at the lower bound and 0.5, and the first stays at the upper.
    shift = (5 - HIGHEST - LOWEST - 6 * 0.5) / 7
    assert moved.sparsity.tolist() == pytest.approx(
        [HIGHEST, LOWEST + shift, 0.5 + shift], abs=1e-4
    )


def test_rows_of_a_linear_share_its_mean_cost_unless_costs_are_by_row() -> None:
    costs = {"b": torch.tensor([7.0]), "a": torch.tensor([1.0, 3.0])}
    assert rows([0.5] * 3).joined(costs, by_row=True).tolist() == [1.0, 3.0, 7.0]
    assert rows([0.5] * 3).joined(costs, by_row=False).tolist() == [2.0, 2.0, 7.0]


def test_counts_are_rounded_and_plans_have_ratios_by_row_or_by_linear() -> None:
    state = rows([0.2, 0.8, 0.45])
    counts = state.counts()
    assert {key: value.tolist() for key, value in counts.items()} == {"a": [0, 1], "b": [3]}
    by_row, by_linear = state.plan(0.5, by_row=True), state.plan(0.5, by_row=False)
    assert torch.equal(torch.as_tensor(by_row.ratios["a"]), vector([0.2, 0.8]))
    assert by_linear.ratios == {"a": 0.5, "b": pytest.approx(0.45)}


def test_durations_below_a_hundred_seconds_are_in_seconds() -> None:
    assert [duration(seconds) for seconds in (42.4, 99.0, 100.0, 180.0)] == [
        "42 s", "99 s", "2 min", "3 min",
    ]  # fmt: skip
