"""Budgets: `exact` counts sum to the total, `reference` rounds as the authors' code does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroal.errors import UserError
from neuroal.sparsity.budget import (
    LinearBudget,
    Rules,
    _reference_counts,
    _shift,
    exact_counts,
    linear_budgets,
    on_device,
    total_zeros,
)
from neuroal.sparsity.patterns import Pattern
from neuroal.sparsity.plan import Ratio, SparsityPlan, uniform_plan
from tests.small_models import tiny_llama


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[str, Ratio], dict[str, tuple[int, int]], float]:
    ratios: dict[str, Ratio] = {}
    shapes: dict[str, tuple[int, int]] = {}
    share = st.floats(-0.3, 1.3)
    for index in range(draw(st.integers(1, 4))):
        rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 33))
        shapes[str(index)] = (rows, cols)
        if draw(st.booleans()):
            values = draw(st.lists(share, min_size=rows, max_size=rows))
            ratios[str(index)] = torch.tensor(values, dtype=torch.float64)
        else:
            ratios[str(index)] = draw(share)
    return ratios, shapes, draw(st.floats(0.01, 0.99))


@given(plans())
def test_exact_counts_sum_to_the_total(
    case: tuple[dict[str, Ratio], dict[str, tuple[int, int]], float],
) -> None:
    ratios, shapes, sparsity = case
    counts = exact_counts(ratios, shapes, sparsity)
    numel = sum(rows * cols for rows, cols in shapes.values())
    assert sum(int(c.sum()) for c in counts.values()) == total_zeros(sparsity, numel)
    for key, (rows, cols) in shapes.items():
        assert counts[key].shape == (rows,)
        assert bool(((counts[key] >= 0) & (counts[key] <= cols)).all())


@given(plans())
def test_exact_counts_are_within_one_of_the_shifted_ratios(
    case: tuple[dict[str, Ratio], dict[str, tuple[int, int]], float],
) -> None:
    ratios, shapes, sparsity = case
    counts = exact_counts(ratios, shapes, sparsity)
    # Of two rows of equal length, the denser one gets at most one zero more than the sparser one.
    for key, (_, cols) in shapes.items():
        ratio = torch.as_tensor(ratios[key], dtype=torch.float64).expand(len(counts[key]))
        order = ratio.argsort()
        assert int(counts[key][order].cummax(0).values.sub(counts[key][order]).max()) <= 1, cols


def test_uniform_ratios_that_meet_the_total_do_not_change() -> None:
    counts = exact_counts({"a": 0.7, "b": 0.7}, {"a": (10, 10), "b": (3, 20)}, 0.7)
    assert counts["a"].tolist() == [7] * 10
    assert counts["b"].tolist() == [14] * 3


def test_the_rounding_error_of_narrow_rows_is_carried_from_row_to_row() -> None:
    counts = exact_counts({"a": 0.7}, {"a": (4, 3)}, 0.7)
    assert counts["a"].tolist() == [2, 2, 2, 2]
    assert exact_counts({"a": 0.5}, {"a": (4, 3)}, 0.5)["a"].tolist() == [2, 1, 2, 1]


def test_reference_rounds_sparsity_down_by_row_and_density_down_by_neuron() -> None:
    decoder = tiny_llama()
    key = next(iter(decoder)).key
    for ratio, zeros in ((0.7, math.floor(0.7 * 32)), (torch.tensor([0.7] * 32), 32 - 9)):
        ratios: dict[str, Ratio] = {linear.key: 0.7 for linear in decoder}
        ratios[key] = ratio
        counts = linear_budgets(SparsityPlan(ratios, 0.7), decoder, Rules.REFERENCE)[key].counts
        assert counts.tolist() == [zeros] * 32


def test_a_plan_must_match_the_model() -> None:
    decoder = tiny_llama()
    ratios: dict[str, Ratio] = {linear.key: 0.5 for linear in decoder}
    with pytest.raises(UserError, match=r"'9\.x', not in the model"):
        linear_budgets(SparsityPlan({**ratios, "9.x": 0.5}, 0.5), decoder, Rules.EXACT)
    with pytest.raises(UserError, match=r"lacks '0\.mlp\.down_proj'"):
        missing = {k: r for k, r in ratios.items() if k != "0.mlp.down_proj"}
        linear_budgets(SparsityPlan(missing, 0.5), decoder, Rules.EXACT)
    with pytest.raises(UserError, match="3 row ratios for 32 rows"):
        wrong = {**ratios, "0.self_attn.q_proj": torch.full((3,), 0.5)}
        linear_budgets(SparsityPlan(wrong, 0.5), decoder, Rules.EXACT)
    with pytest.raises(UserError, match="0 row ratios for 32 rows"):
        saved = {"sparsity": 0.5, "ratios": {**ratios, "0.self_attn.q_proj": []}}
        linear_budgets(SparsityPlan.from_dict(saved), decoder, Rules.EXACT)


def plain_bisection(
    ratios: dict[str, Ratio], shapes: dict[str, tuple[int, int]], sparsity: float
) -> float:
    """Return the shift of the exact budget after a hundred bisection steps."""
    parts = [torch.as_tensor(ratios[key], dtype=torch.float64).reshape(-1) for key in shapes]
    values = torch.cat(parts)
    sizes = [rows * cols for rows, cols in shapes.values()]
    weights = torch.cat(
        [torch.full_like(part, size / len(part)) for part, size in zip(parts, sizes, strict=True)]
    )
    total = total_zeros(sparsity, sum(sizes))
    highest = max(0.99, sparsity)
    low, high = -float(values.max()), highest - float(values.min())
    for _ in range(100):
        shift = (low + high) / 2
        if float(((values + shift).clamp(0, highest) * weights).numpy().sum()) < total:
            low = shift
        else:
            high = shift
    return high


@given(plans())
def test_newton_steps_and_bisection_find_the_same_shift(
    case: tuple[dict[str, Ratio], dict[str, tuple[int, int]], float],
) -> None:
    assert _shift(*case)[0] == pytest.approx(plain_bisection(*case), rel=0, abs=1e-15)


@pytest.mark.parametrize(("sparsity", "numel", "zeros"), [(0.5, 3, 2), (0.25, 9, 2), (0.75, 9, 7)])
def test_the_total_is_rounded_to_the_nearest_number_and_halves_upwards(
    sparsity: float, numel: int, zeros: int
) -> None:
    assert total_zeros(sparsity, numel) == zeros


def test_the_last_row_makes_up_for_the_rounding_of_the_sum() -> None:
    """Above 99 %, the ratios cannot exceed s, and their sum falls just short of the half of K."""
    for sparsity, shape in ((0.995, (20, 5)), (0.999, (10, 50))):
        counts = exact_counts({"a": sparsity}, {"a": shape}, sparsity)["a"]
        assert int(counts.sum()) == math.floor(sparsity * shape[0] * shape[1] + 0.5)


def test_budgets_move_to_a_device_with_all_that_they_say() -> None:
    decoder = tiny_llama()
    budgets = linear_budgets(uniform_plan(decoder, 0.7), decoder, Rules.REFERENCE)
    moved = on_device(budgets, torch.device("meta"))
    assert list(moved) == list(budgets)
    for key, budget in budgets.items():
        assert moved[key].counts.device.type == "meta"
        assert moved[key].counts.shape == budget.counts.shape
        assert (moved[key].ratio, moved[key].rules) == (budget.ratio, budget.rules)
    for key, budget in on_device(budgets, torch.device("cpu")).items():
        assert torch.equal(budget.counts, budgets[key].counts)


@pytest.mark.parametrize("rules", Rules)
def test_ties_prune_higher_columns_only_for_ratios_by_row_under_reference_rules(
    rules: Rules,
) -> None:
    counts = torch.tensor([1, 2])
    assert not LinearBudget(counts, 0.5, rules).ties_to_higher
    by_row = LinearBudget(counts, torch.tensor([0.5, 0.6]), rules)
    assert by_row.ties_to_higher == (rules is Rules.REFERENCE)


def test_reference_rules_leave_dense_rows_dense_and_empty_rows_empty() -> None:
    counts = _reference_counts(torch.tensor([0.0, 0.01, 0.99, 1.0]), rows=4, cols=10)
    assert counts.tolist() == [0, 1, 10, 10]


def test_a_pattern_gives_every_row_the_zeros_of_its_groups() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    budgets = linear_budgets(uniform_plan(decoder, 0.75), decoder, Rules.EXACT, 4)
    for linear in decoder:
        assert budgets[linear.key].pattern == Pattern(1, 4)
        assert budgets[linear.key].counts.tolist() == [linear.cols * 3 // 4] * linear.rows
