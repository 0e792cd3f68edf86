"""A plan that is read back gives the budgets of the plan that was made, bit for bit."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from neuroal.errors import UserError
from neuroal.execution.costs import StageCosts
from neuroal.files.atomic import write_json
from neuroal.models.adapter import DecoderModel
from neuroal.pipeline import Recipe, prune
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.plan import Ratio, SparsityPlan, check_shares, uniform_plan
from neuroal.topups.plan_file import PlanFile
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.small_models import allocation_context, tiny_llama


@lru_cache
def shapes_only(blocks: int) -> DecoderModel:
    """Return a LLaMA with unequal linears that has no weights in memory."""
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    with torch.device("meta"):
        return DecoderModel(LlamaForCausalLM(config))


SHARES = st.one_of(st.sampled_from([0.5, 0.55, 0.6, 0.7, 0.75]), st.floats(-0.4, 1.4))
"""Few values among them, so that ties are common, and some outside [0, 1]."""


@st.composite
def plans(draw: st.DrawFn) -> tuple[SparsityPlan, DecoderModel]:
    """Draw a plan by model, block, linear or row."""
    decoder = shapes_only(draw(st.integers(1, 40)))
    kind = draw(st.sampled_from(["uniform", "block", "linear", "row", "mixed"]))
    sparsity = draw(st.one_of(st.sampled_from([0.5, 0.7]), st.floats(0.05, 0.95)))
    palette = draw(st.lists(SHARES, min_size=1, max_size=8))
    ratios: dict[str, Ratio] = {}
    for number, linear in enumerate(decoder):
        step = {"uniform": 0, "block": linear.block}.get(kind, number)
        ratios[linear.key] = palette[step % len(palette)]
        if kind == "row" or (kind == "mixed" and number % 3 == 0):
            rows = [palette[(step + row) % len(palette)] for row in range(linear.rows)]
            ratios[linear.key] = torch.tensor(rows, dtype=torch.float64)
    return SparsityPlan(ratios, sparsity), decoder


def assert_equal_budgets(first: dict[str, LinearBudget], second: dict[str, LinearBudget]) -> None:
    assert list(first) == list(second)
    for key, budget in first.items():
        assert torch.equal(budget.counts, second[key].counts)
        assert budget.pattern == second[key].pattern
        assert type(budget.ratio) is type(second[key].ratio)
        assert torch.equal(torch.as_tensor(budget.ratio), torch.as_tensor(second[key].ratio))


@settings(max_examples=60, deadline=None)
@given(plans(), st.sampled_from(Rules), st.sampled_from([None, 4, 8]))
def test_a_plan_read_back_gives_the_same_budgets(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[SparsityPlan, DecoderModel],
    rules: Rules,
    group: int | None,
) -> None:
    plan, decoder = case
    group = None if plan.per_row() else group
    path = tmp_path_factory.getbasetemp() / "plan.json"
    write_json(path, Allocation(plan).to_dict())
    budgets = linear_budgets(plan, decoder, rules, group)
    assert_equal_budgets(budgets, linear_budgets(SparsityPlan.load(path), decoder, rules, group))
    context = allocation_context(decoder, sparsity=plan.sparsity, rules=rules, group=group)
    read = PlanFile(str(path)).allocate(context).plan
    assert_equal_budgets(budgets, context.budgets(read))
    assert all(0 <= mean <= 1 for mean in read.means().values())


def test_an_n_of_m_plan_of_eleven_blocks_keeps_its_patterns(tmp_path: Path) -> None:
    decoder = shapes_only(11)
    plan = uniform_plan(decoder, 0.55)  # N is 2 in nine blocks and 1 in two
    write_json(tmp_path / "plan.json", plan.to_dict())
    read = SparsityPlan.load(tmp_path / "plan.json")
    assert list(read.ratios) != list(plan.ratios)  # the file is sorted by text: 1, 10, 2
    assert_equal_budgets(
        linear_budgets(plan, decoder, Rules.EXACT, 4), linear_budgets(read, decoder, Rules.EXACT, 4)
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("by_row", [False, True])
def test_a_plan_with_a_ratio_that_is_not_finite_is_refused(value: float, by_row: bool) -> None:
    ratio = torch.tensor([0.5, value]) if by_row else value
    with pytest.raises(UserError, match=r"'0\.q_proj' is NaN or infinite"):
        SparsityPlan({"0.q_proj": ratio}, 0.5)


def test_a_plan_holds_ratios_within_the_bounds() -> None:
    plan = SparsityPlan({"0.a": 1.2, "0.b": torch.tensor([-0.1, 0.5])}, 0.5)
    assert plan.to_dict()["ratios"] == {"0.a": 1.0, "0.b": [0.0, 0.5]}


def test_a_plan_or_budgets_for_another_sparsity_are_refused() -> None:
    context = allocation_context(tiny_llama(), sparsity=0.6)
    other = uniform_plan(context.decoder, 0.5)
    with pytest.raises(UserError, match=r"made for a sparsity of 0\.5"):
        context.budgets(other)
    budgets = linear_budgets(other, context.decoder, Rules.EXACT)
    recipe = Recipe(context.settings, Uniform())
    allocation = Allocation(uniform_plan(context.decoder, 0.6), budgets=budgets)
    costs = StageCosts(context.decoder.device)
    with pytest.raises(UserError, match="zeros, not the"):
        prune(context.decoder, recipe, allocation, context.tokens, costs, QuietProgress())


@pytest.mark.parametrize("sparsity", [-0.1, 0.0, 1.0, 1.5])
def test_a_saved_plan_needs_a_sparsity_between_zero_and_one(sparsity: float) -> None:
    with pytest.raises(UserError, match="must be above 0 and below 1"):
        SparsityPlan.from_dict({"sparsity": sparsity, "ratios": {"0.mlp": 0.5}})


def test_ratios_per_row_are_clipped_above_and_below() -> None:
    plan = SparsityPlan({"0.a": torch.tensor([-0.1, 0.5, 1.5])}, 0.5)
    assert torch.as_tensor(plan.ratios["0.a"]).tolist() == [0.0, 0.5, 1.0]


def test_shares_from_zero_to_one_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_shares("plan", {"0.a": torch.tensor([0.0, 0.3, 1.0]), "0.b": 0.5})
    with pytest.warns(UserWarning, match=r"between -0\.1 and 1\.1 are outside"):
        check_shares("plan", {"0.a": torch.tensor([0.0, -0.1, 1.1])})


def test_a_file_may_have_the_largest_size_of_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    write_json(path, uniform_plan(shapes_only(1), 0.5).to_dict())
    size = path.stat().st_size
    monkeypatch.setattr("neuroal.sparsity.plan.MOST_BYTES", size)
    SparsityPlan.load(path)
    monkeypatch.setattr("neuroal.sparsity.plan.MOST_BYTES", size - 1)
    with pytest.raises(UserError, match=f"has {size} bytes"):
        SparsityPlan.load(path)
