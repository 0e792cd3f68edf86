"""Fisher allocation: exact budgets, reproducible plans, every pruner, pattern and placement."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import neuroal
from neuroal.errors import UserError
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner, ScorePruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import Rules, total_zeros
from neuroal.sparsity.plan import SparsityPlan
from neuroal.topups.fisher import EXPONENT, Fisher
from tests.architectures import model_of
from tests.small_models import allocation_context, check, random_tokens, tiny_llama

TOKENS = random_tokens(6, 24)
FORMS = ("elementwise", "factored")


def plan_of(
    topup: Fisher,
    decoder: DecoderModel | None = None,
    pruner: Pruner = Magnitude(),  # noqa: B008
    **changes: Any,
) -> SparsityPlan:
    options = {"tokens": TOKENS, "batch": 2, **changes}
    context = allocation_context(decoder or tiny_llama(), pruner, **options)
    return topup.allocate(context).plan


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "pruner", [Magnitude(), Wanda(), Multiflow(), SparseGPT()], ids=lambda p: type(p).__name__
)
def test_every_pruner_meets_the_exact_budget_of_the_plan(form: str, pruner: Pruner) -> None:
    topup = Fisher(form=form, windows=2)
    result = neuroal.prune(model_of("llama"), TOKENS, pruner=pruner, topup=topup, sparsity=0.63)
    numel = sum(mask.numel() for mask in result.masks.values())
    assert sum(int(mask.sum()) for mask in result.masks.values()) == total_zeros(0.63, numel)
    assert result.plan.per_row()
    assert result.report["zeros"][-1] == total_zeros(0.63, numel)
    assert len(result.report["loss"]) == 4


@pytest.mark.parametrize(("form", "exponent"), [("factored", EXPONENT), ("elementwise", None)])
def test_the_report_has_the_exponent_of_the_form_that_uses_it(
    form: str, exponent: float | None
) -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS)
    report = Fisher(form=form, windows=2, rounds=1).allocate(context).report
    assert report.get("exponent") == exponent
    assert report["form"] == form


def test_rows_have_the_zeros_of_the_last_mask() -> None:
    """No row reaches the cap here, so the budget rule changes no count."""
    decoder = tiny_llama()
    context = allocation_context(decoder, Wanda(), tokens=TOKENS, sparsity=0.05)
    plan = Fisher(windows=2).allocate(context).plan
    for key, budget in context.budgets(plan).items():
        ratio = torch.as_tensor(plan.ratios[key])
        cols = next(linear.cols for linear in decoder if linear.key == key)
        assert torch.equal(budget.counts, (ratio * cols).round().long())


class ByColumn(ScorePruner):
    """Prunes the first columns of every row, whatever their weights."""

    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        return torch.arange(weight.shape[1], device=weight.device).float().expand_as(weight)


def test_a_plan_counts_the_costs_of_the_weights_that_the_pruner_takes() -> None:
    """The weights in the first half of the columns of one linear are made expensive."""
    decoder = tiny_llama()
    costly = next(iter(decoder))
    with torch.no_grad():
        costly.weight[:, : costly.cols // 2] *= 20
        costly.weight[:, costly.cols // 2 :] = 0  # the cheapest of the model, if they could be had
    plans = [plan_of(Fisher(windows=2), decoder, p, sparsity=0.3) for p in (Wanda(), ByColumn())]
    wanda, by_column = (torch.as_tensor(plan.ratios[costly.key]).mean() for plan in plans)
    assert wanda == pytest.approx(0.5, abs=0.05)
    assert by_column < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_equal_seeds_give_equal_plans_and_different_seeds_different_plans(form: str) -> None:
    topup = Fisher(form=form, windows=2)
    assert plan_of(topup).to_dict() == plan_of(topup).to_dict()
    assert plan_of(topup).to_dict() != plan_of(topup, seed=1).to_dict()


@pytest.mark.parametrize("form", FORMS)
def test_the_plan_hardly_depends_on_the_batch(form: str) -> None:
    topup = Fisher(form=form, windows=3)
    first, second = plan_of(topup, batch=1), plan_of(topup, batch=3)
    for key, ratio in first.ratios.items():
        difference = torch.as_tensor(ratio) - torch.as_tensor(second.ratios[key])
        assert float(difference.abs().mean()) < 0.005


def test_allocation_leaves_the_model_dense() -> None:
    decoder = tiny_llama()
    before = [(linear.module.weight, linear.weight.clone()) for linear in decoder]
    plan_of(Fisher(windows=2), decoder)
    for linear, (parameter, values) in zip(decoder, before, strict=True):
        assert linear.module.weight is parameter
        assert torch.equal(parameter, values)
        assert parameter.grad is None


def test_patterns_take_one_ratio_per_linear() -> None:
    topup = Fisher(step="linear", windows=2)
    assert not plan_of(topup).per_row()
    result = neuroal.prune(model_of("llama"), TOKENS, topup=topup, pattern=(4, 8))
    assert result.sparsity == pytest.approx(0.5, abs=0.02)
    for mask in result.masks.values():
        per_group = (~mask).view(len(mask), -1, 8).sum(2)
        assert int(per_group.min()) == int(per_group.max())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fisher(form="factor"), "did you mean 'factored'"),
        (lambda: Fisher(step="rows"), "did you mean 'row'"),
        (lambda: Fisher(rounds=0), r"topup\.rounds=0"),
        (lambda: Fisher(windows=0), r"topup\.windows=0"),
        (lambda: Fisher(skip=-1), r"topup\.skip=-1"),
        (lambda: Fisher(exponent=-0.5), r"topup\.exponent=-0\.5"),
        (lambda: Fisher(exponent=4.5), r"topup\.exponent=4\.5"),
        (
            lambda: Fisher(form="elementwise", exponent=0.7),
            r"topup\.form=factored, or topup\.exponent=null",
        ),
        (lambda: plan_of(Fisher(windows=7)), r"calibration\.search_windows=7 or more"),
        (lambda: plan_of(Fisher(windows=2, skip=24)), r"topup\.skip=24: leaves no token"),
        (lambda: check(Fisher(), Wanda(), 0.5, Rules.EXACT, 4), r"use topup\.step=linear"),
        (
            lambda: check(Fisher(), SparseGPT(), 0.5, Rules.REFERENCE),
            "use rules=exact, or topup.step=linear",
        ),
    ],
)
def test_errors_name_invalid_settings_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("exponent", [0.0, 4.0])
def test_exponents_from_zero_to_four_are_accepted(exponent: float) -> None:
    assert Fisher(exponent=exponent).settings.exponent == exponent


def test_only_the_elementwise_form_stores_a_number_for_every_weight() -> None:
    assert Fisher(form="factored").search_bytes(weights=1e9, states=1e6) == 1e6
    assert Fisher(form="elementwise").search_bytes(weights=1e9, states=1e6) == 1e9 + 1e6
