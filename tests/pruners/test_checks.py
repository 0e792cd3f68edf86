"""What a pruner or a refiner returns is checked: one line names the method and the linear."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import (
    FactorPruner,
    Factors,
    MaskRefiner,
    PrunedWeight,
    Pruner,
    ScorePruner,
)
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.search.criteria.base import pruned_by
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

LAST = (32, 48)
"""Shape of ``mlp.down_proj``, the only linear that the faulty methods below treat wrongly."""


def pruned(
    pruner: Pruner,
    refiner: MaskRefiner | None = None,
    group: int | None = None,
    rules: Rules = Rules.EXACT,
    by_row: bool = False,
) -> None:
    decoder = tiny_llama(num_hidden_layers=2)
    plan = uniform_plan(decoder, 0.5)
    if by_row:
        rows = {lin.key: torch.linspace(0.3, 0.7, lin.rows) for lin in decoder}
        plan = SparsityPlan(dict(rows), 0.5)
    budgets = linear_budgets(plan, decoder, rules, group)
    batch = AdaptiveBatch("prune", 4, divides=True)
    method = RefinedPruner(pruner, refiner)
    prune_model(decoder, method, budgets, random_tokens(4, 24), batch, QuietProgress())


def fails(message: str, pruner: Pruner, refiner: MaskRefiner | None = None, **terms: int) -> None:
    with pytest.raises(UserError, match=message) as raised:
        pruned(pruner, refiner, **terms)
    assert "\n" not in str(raised.value)
    assert "'0.mlp.down_proj'" in str(raised.value)
    assert str(raised.value).startswith(f"{'refine' if refiner else 'pruner'}=faulty")


@dataclass(frozen=True)
class Faulty(ScorePruner):
    score: float = float("nan")
    cut: int = 0

    def scores(self, weight: Tensor, statistics: InputStatistics | None) -> Tensor:
        scores = weight.abs()
        if weight.shape == LAST:
            scores[3, 4] = self.score
            scores = scores[:, self.cut :]
        return scores


@pytest.mark.parametrize("group", [None, 4])
@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_scores_must_be_finite(score: float, group: int | None) -> None:
    fails("scores are NaN or infinite", Faulty(score), group=group)


def test_scores_must_be_finite_under_a_refinement() -> None:
    with pytest.raises(UserError, match=r"pruner=faulty: '0\.mlp\.down_proj': its scores"):
        pruned(Faulty(), DSnoT())


def test_scores_must_have_the_shape_of_the_weight() -> None:
    fails(r"shape \(32, 47\); must be \(32, 48\)", Faulty(0.0, cut=1))
    decoder = tiny_llama(num_hidden_layers=1)
    budgets = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT)
    with pytest.raises(UserError, match=r"'0\.mlp\.down_proj'.* must be \(32, 48\)"):
        pruned_by(Faulty(0.0, cut=1), budgets)(decoder.linears[0], {})


def test_factors_must_be_finite_and_of_the_right_length() -> None:
    @dataclass(frozen=True)
    class Faulty(FactorPruner):
        wrong: Tensor

        def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
            return Factors(cols=self.wrong if weight.shape == LAST else None)

    nan = torch.ones(48)
    nan[7] = torch.nan
    fails("scores are NaN", Faulty(nan))
    fails(r"factor of the cols has the shape \(47,\); must be \(48,\)", Faulty(torch.ones(47)))


@dataclass(frozen=True)
class Changed(Pruner):
    """Magnitude with one change of its result for ``mlp.down_proj``."""

    change: str

    @property
    def name(self) -> str:
        return "faulty"

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        result = Magnitude().prune(weight, statistics, budget)
        return CHANGES[self.change](weight, result) if weight.shape == LAST else result


@dataclass(frozen=True)
class Updating(Changed):
    updates_weights: ClassVar[bool] = True


def _moved(weight: Tensor, result: PrunedWeight) -> PrunedWeight:
    """Move one zero from row 0 to row 1, at an equal total."""
    mask = result.mask.clone()
    mask[0, mask[0].nonzero()[0]] = False
    mask[1, (~mask[1]).nonzero()[0]] = True
    return PrunedWeight(weight.masked_fill(mask, 0), mask)


def _in_place(weight: Tensor, result: PrunedWeight) -> PrunedWeight:
    weight.mul_(2)
    return result


CHANGES = {
    "none": lambda weight, result: result,
    "moved": _moved,
    "dense": lambda weight, result: PrunedWeight(weight, torch.zeros_like(result.mask)),
    "unmasked": lambda weight, result: PrunedWeight(weight, result.mask),
    "scaled": lambda weight, result: PrunedWeight(result.weight * 1.01, result.mask),
    "more zeros": lambda weight, result: PrunedWeight(result.weight * 0, result.mask),
    "nan": lambda weight, result: PrunedWeight(result.weight / 0, result.mask),
    "narrow": lambda weight, result: PrunedWeight(result.weight[:, 1:], result.mask),
    "narrow mask": lambda weight, result: PrunedWeight(result.weight, result.mask[:, 1:]),
    "number mask": lambda weight, result: PrunedWeight(result.weight, result.mask.int()),
    "no mask": lambda weight, result: PrunedWeight(result.weight, None),
    "pair": lambda weight, result: (result.weight, result.mask),
    "in place": _in_place,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("moved", "does not have the zeros of the budget: 768 in all"),
        ("dense", "does not have the zeros of the budget"),
        ("unmasked", "not the original one with 0"),
        ("scaled", "updates_weights = True"),
        ("more zeros", "not the original one"),
        ("narrow", r"shape \(32, 47\); must be \(32, 48\)"),
        ("narrow mask", r"mask has the shape \(32, 47\); must be \(32, 48\)"),
        ("number mask", r"mask is torch\.int32; must be torch\.bool"),
        ("no mask", "mask is a NoneType"),
        ("pair", "prune returned a tuple; must return a PrunedWeight"),
        ("in place", "changed its input in place"),
    ],
)
def test_a_pruner_must_prune_the_budget_and_change_nothing_else(change: str, message: str) -> None:
    fails(message, Changed(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dense", "does not have the zeros of the budget"),
        ("unmasked", "not 0 where its mask prunes"),
        ("nan", "updated weight is NaN or infinite"),
        ("in place", "changed its input in place"),
    ],
)
def test_a_pruner_that_updates_weights_must_prune_the_budget(change: str, message: str) -> None:
    fails(message, Updating(change))


@pytest.mark.parametrize("change", ["none", "moved", "scaled", "more zeros"])
def test_a_pruner_that_updates_weights_may_distribute_the_zeros_of_a_linear(change: str) -> None:
    pruned(Updating(change))


def test_every_row_of_a_row_plan_and_every_group_of_a_pattern_is_counted() -> None:
    fails("in every row or group", Updating("moved"), by_row=True)
    fails("in every row or group", Updating("moved"), group=4)
    fails("in every row or group", Changed("moved"), rules=Rules.REFERENCE)


@dataclass(frozen=True)
class FaultyRefiner(MaskRefiner):
    fault: str
    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM})

    @property
    def name(self) -> str:
        return "faulty"

    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        if weight.shape != LAST:
            return mask
        if self.fault == "in place":
            weight.zero_()
            return mask
        if self.fault == "narrow":
            return mask[:, 1:]
        return _moved(weight, PrunedWeight(weight, mask)).mask


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("moved", "does not have the zeros"),
        ("narrow", r"must be \(32, 48\)"),
        ("in place", "changed its input in place"),
    ],
)
@pytest.mark.parametrize("pruner", [Wanda(), SparseGPT()])
def test_a_refiner_must_keep_the_counts_of_every_row(
    pruner: Pruner, fault: str, message: str
) -> None:
    fails(message, pruner, FaultyRefiner(fault))


PACKAGE = [Magnitude(), Wanda(), Multiflow(), SparseGPT(block_size=20), ALPS(stages=2)]


@pytest.mark.parametrize(
    ("pruner", "refiner", "rules"),
    [
        (pruner, refiner, rules)
        for pruner in PACKAGE
        for refiner in ([None, DSnoT()] if pruner.refinable else [None])
        for rules in sorted(pruner.rules)
    ],
)
def test_the_methods_of_the_package_pass_the_checks(
    pruner: Pruner, refiner: MaskRefiner | None, rules: Rules
) -> None:
    pruned(pruner, refiner, rules=rules)
    if pruner.supports_row_ratios(rules):
        pruned(pruner, refiner, rules=rules, by_row=True)
    if refiner is None:
        pruned(pruner, group=8, rules=rules)


def test_sparsegpt_names_the_linear_and_the_cause_of_a_failure() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    budgets = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT)
    linears = decoder.linears[0]
    gram, sums = torch.eye(32), torch.ones(1, 32)

    def prune(statistics: InputStatistics) -> None:
        pruned_by(SparseGPT(), budgets)(linears, {linears[0].key: statistics})

    with pytest.raises(UserError, match=r"'0\.self_attn\.q_proj'.*overflow.*model\.dtype"):
        prune(InputStatistics(sums, gram=gram * torch.inf))
    with pytest.raises(UserError, match=r"damping=0\.01: '0\.self_attn\.q_proj'.*definite"):
        prune(InputStatistics(sums, gram=gram - 2 * torch.ones(32, 32)))


def test_a_failed_check_is_reported_for_the_first_linear() -> None:
    decoder = tiny_llama()
    budgets = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT)
    counts = budgets["1.mlp.up_proj"].counts
    wrong = dataclasses.replace(budgets["1.mlp.up_proj"], counts=counts)
    batch = AdaptiveBatch("prune", 4, divides=True)

    class OneLess(Magnitude):
        def meets(self, mask: Tensor, budget: LinearBudget) -> Tensor:
            return torch.tensor(budget is not wrong)

    budgets |= {"1.mlp.up_proj": wrong}
    with pytest.raises(UserError, match=r"'1\.mlp\.up_proj'"):
        prune_model(decoder, OneLess(), budgets, random_tokens(4, 24), batch, QuietProgress())
