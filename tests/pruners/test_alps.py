"""ALPS chooses masks by ADMM, fits the remaining weights, and prunes again to the same bytes."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import neuroal
from neuroal.cli.compose import composed
from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.kernels.selection import lowest_per_row
from neuroal.pipeline import Recipe, make_recipe
from neuroal.pruners.alps import ALPS, GROWTH, least_squares
from neuroal.pruners.base import Pruner
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.search.criteria.base import pruned_by
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.patterns import Pattern
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

ROWS, COLS = 6, 20


def inputs(tokens: int = 200, seed: int = 0) -> Tensor:
    """Return correlated inputs (tokens, COLS)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(COLS, COLS, generator=generator)
    return torch.randn(tokens, COLS, generator=generator) @ mixing


def statistics_of(x: Tensor, readers: int = 1) -> InputStatistics:
    return InputStatistics(x.square().sum(0)[None], gram=x.T @ x, readers=readers)


def random_weight(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, COLS, generator=torch.Generator().manual_seed(seed))


def by_rows(*counts: int) -> LinearBudget:
    return LinearBudget(torch.tensor(counts), torch.tensor(counts) / COLS, Rules.EXACT)


BUDGET = by_rows(10, 14, 12, 0, 20, 16)


def error(weight: Tensor, pruned: Tensor, x: Tensor) -> float:
    return float(((weight - pruned) @ x.T).square().sum())


def reference_mask(pruner: ALPS, weight: Tensor, x: Tensor, budget: LinearBudget) -> Tensor:
    """Return the mask by the formulas as published, in float64 and with one inverse per stage."""
    gram = x.double().T @ x.double()
    hessian = gram + pruner.damping * gram.diagonal().mean() * torch.eye(COLS)
    scale = hessian.diagonal().sqrt()
    hessian, dense = hessian / scale / scale[:, None], weight.double() * scale
    sparse, dual = dense, torch.zeros_like(dense)
    rho = pruner.rho
    for stage in range(pruner.stages):
        if stage:
            rho *= GROWTH**pruner.stage_steps
            dual = dual / GROWTH**pruner.stage_steps
        inverse = torch.linalg.inv(hessian + rho * torch.eye(COLS))
        for _ in range(pruner.stage_steps):
            free = (dense @ hessian + rho * (sparse - dual)) @ inverse
            mask = lowest_per_row((free + dual).abs(), budget.counts)
            sparse = (free + dual).masked_fill(mask, 0)
            dual = dual + free - sparse
    return mask


@pytest.mark.parametrize("pruner", [ALPS(), ALPS(stages=150, stage_steps=1), ALPS(stages=1)])
def test_the_mask_is_that_of_the_published_formulas(pruner: ALPS) -> None:
    weight, x = random_weight(), inputs()
    pruned = pruner.prune(weight, statistics_of(x), BUDGET)
    assert torch.equal(pruned.mask, reference_mask(pruner, weight, x, BUDGET))


def test_the_remaining_weights_are_the_least_squares_solution() -> None:
    weight, x = random_weight(), inputs()
    pruner = ALPS(damping=1e-6)
    pruned = pruner.prune(weight, statistics_of(x), BUDGET)
    for row, mask, fitted in zip(weight, pruned.mask, pruned.weight, strict=True):
        expected = torch.zeros(COLS)
        if not bool(mask.all()):
            solution = torch.linalg.lstsq(x[:, ~mask].double(), (x @ row)[:, None].double())
            expected[~mask] = solution.solution[:, 0].float()
        torch.testing.assert_close(fitted, expected, atol=2e-3, rtol=2e-3)


def test_the_error_is_below_that_of_sparsegpt_and_wanda() -> None:
    for seed in range(4):
        weight, x = random_weight(seed), inputs(seed=seed)
        pruners: list[Pruner] = [ALPS(), SparseGPT(block_size=8), Wanda()]
        errors = [
            error(weight, p.prune(weight, statistics_of(x), by_rows(*[12] * ROWS)).weight, x)
            for p in pruners
        ]
        assert errors[0] < min(errors[1:])


def test_a_row_stops_when_it_has_converged() -> None:
    hessian = torch.corrcoef(inputs().T)
    dense, mask = random_weight(), torch.rand(ROWS, COLS) < 0.5
    mask[0], mask[1] = True, False
    results = [least_squares(dense, mask, hessian, hessian, steps) for steps in (60, 2000)]
    assert bool(results[1].isfinite().all())
    torch.testing.assert_close(*results)


def test_inputs_that_are_always_zero_get_zeros() -> None:
    x = inputs()
    x[:, [3, 8]] = 0
    pruned = ALPS().prune(random_weight(), statistics_of(x), by_rows(*[1] * ROWS))
    assert bool((pruned.weight[:, [3, 8]] == 0).all())
    assert bool((pruned.mask.sum(1) == 1).all())
    assert bool(pruned.mask[:, [3, 8]].any(1).all())
    silent = ALPS().prune(random_weight(), statistics_of(torch.zeros(5, COLS)), BUDGET)
    assert not bool(silent.weight.any())


def test_every_row_or_group_has_its_zeros() -> None:
    statistics = statistics_of(inputs())
    assert torch.equal(ALPS().prune(random_weight(), statistics, BUDGET).mask.sum(1), BUDGET.counts)
    pattern = Pattern(2, 4)
    counts = torch.full((ROWS,), COLS // 2)
    budget = LinearBudget(counts, 0.5, Rules.EXACT, pattern)
    assert bool(pattern.holds(ALPS().prune(random_weight(), statistics, budget).mask))


def test_zeros_may_not_move_between_rows() -> None:
    budget = LinearBudget(torch.full((2,), 1), 0.5, Rules.EXACT)
    rows, total = torch.tensor([[True, False]] * 2), torch.tensor([[True, True], [False, False]])
    assert bool(ALPS().meets(rows, budget))
    assert not bool(ALPS().meets(total, budget))


def test_linears_of_one_input_share_its_inverses(monkeypatch: pytest.MonkeyPatch) -> None:
    inverted: list[float] = []
    invert = ALPS._inverted
    monkeypatch.setattr(
        ALPS, "_inverted", lambda self, h, rho: inverted.append(rho) or invert(self, h, rho)
    )
    weights = [random_weight(seed) for seed in range(3)]
    shared = statistics_of(inputs(), readers=3)
    results = [ALPS().prune(weight, shared, BUDGET) for weight in weights]
    assert len(inverted) == len(set(inverted)) == ALPS.stages
    alone = statistics_of(inputs())
    for weight, result in zip(weights, results, strict=True):
        assert torch.equal(ALPS().prune(weight, alone, BUDGET).weight, result.weight)
    assert len(alone.memo) == 1  # one reader: no inverse is stored


def prune(
    pruner: Pruner, form: str = "uniform", batch: int = 4, masks: PackedMasks | None = None
) -> tuple[PackedMasks, list[Tensor]]:
    decoder = tiny_llama(hidden_size=40, num_hidden_layers=3)
    plan = uniform_plan(decoder, 0.6)
    if form == "rows":
        rows = {lin.key: torch.linspace(0.4, 0.8, lin.rows) for lin in decoder}
        plan = SparsityPlan(dict(rows), 0.6)
    budgets = linear_budgets(plan, decoder, Rules.EXACT, 4 if form == "2of4" else None)
    size = AdaptiveBatch("prune", batch, divides=True)
    tokens = random_tokens(4, 24)
    method = RefinedPruner(pruner)
    result = prune_model(decoder, method, budgets, tokens, size, QuietProgress(), masks=masks)
    return result, [linear.weight.clone() for linear in decoder]


@pytest.mark.parametrize("form", ["uniform", "rows", "2of4"])
def test_the_masks_of_a_free_run_give_its_weights_again_without_admm(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, expected = prune(ALPS(), form)
    monkeypatch.setattr(ALPS, "_mask", None)
    again, result = prune(ALPS(), form, masks=masks)
    assert again.digests() == masks.digests()
    assert again.differing is None  # ADMM did not run
    assert all(torch.equal(a, b) for a, b in zip(expected, result, strict=True))


def test_prescribed_masks_are_followed() -> None:
    masks, _ = prune(Wanda())
    again, result = prune(ALPS(), masks=masks)
    assert again.digests() == masks.digests()
    for mask, weight in zip(masks.values(), result, strict=True):
        assert not bool(weight[mask].any())
        assert bool(weight[~mask].any())


def zoo_perplexity(pruner: Pruner, tokens: Tensor, evaluation: Tensor) -> float:
    from neuroal.evaluation.perplexity import perplexity

    folder = Path(neuroal.__file__).parent / "zoo" / "opt"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    neuroal.prune(model, tokens, pruner=pruner, topup="uniform", sparsity=0.7)
    return perplexity(model, evaluation, batch=8).value


@pytest.mark.slow
def test_a_trained_model_keeps_more_than_with_sparsegpt() -> None:
    tokenizer = AutoTokenizer.from_pretrained(Path(neuroal.__file__).parent / "zoo" / "opt")
    tokens = neuroal.calibration_tokens("builtin", tokenizer, windows=32, seqlen=128)
    evaluation = neuroal.calibration_tokens("builtin", tokenizer, windows=16, seqlen=128, seed=1)
    pruners: tuple[Pruner, ...] = (ALPS(), SparseGPT(), Wanda())
    alps, sparsegpt, wanda = (zoo_perplexity(p, tokens, evaluation) for p in pruners)
    assert alps < sparsegpt < wanda


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (torch.eye(32) * torch.inf, r"'0\.self_attn\.q_proj'.*overflow.*model\.dtype"),
        (2 - torch.eye(32), r"damping=0\.01: '0\.self_attn\.q_proj'.*not positive definite"),
    ],
)
def test_a_hessian_without_an_inverse_names_the_linear(gram: Tensor, message: str) -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    budgets = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT)
    linears = decoder.linears[0]
    statistics = InputStatistics(torch.ones(1, 32), gram=gram)
    with pytest.raises(UserError, match=message) as raised:
        pruned_by(ALPS(), budgets)(linears, {linears[0].key: statistics})
    assert "\n" not in str(raised.value)


def test_an_input_with_fewer_tokens_than_columns_has_a_solution() -> None:
    pruned = ALPS().prune(random_weight(), statistics_of(inputs(3)), BUDGET)
    assert bool(pruned.weight.isfinite().all())


@pytest.mark.parametrize(("windows", "expected"), [(1, 1), (2, 0)])
def test_too_few_tokens_for_the_width_are_one_warning(windows: int, expected: int) -> None:
    model = tiny_llama().model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        neuroal.prune(model, random_tokens(windows, 24), pruner="alps", topup="uniform")
    messages = [str(w.message) for w in caught if "pruner=alps" in str(w.message)]
    assert len(messages) == expected
    for message in messages:
        assert "24 calibration tokens" in message
        assert "48 inputs of '0.mlp.down_proj'; set a higher calibration.windows" in message


REFUSED = [
    ({"rules": Rules.REFERENCE}, None, r"^rules=reference: not defined .*alps; use rules=exact$"),
    ({}, DSnoT(), r"^refine=dsnot: .* undo the fit of pruner=alps; use refine=none$"),
]


@pytest.mark.parametrize(("settings", "refiner", "message"), REFUSED)
def test_what_alps_does_not_support_is_refused(
    settings: dict[str, Rules], refiner: DSnoT | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(PruningSettings(ALPS(), 0.5, **settings), Uniform(), refiner).check()


@pytest.mark.parametrize("override", ["rules=reference", "refine=dsnot"])
def test_a_run_refuses_it_before_a_model_is_loaded(override: str) -> None:
    config = composed(["model=hf", "model.path=missing", "pruner=alps", "topup=uniform", override])
    with pytest.raises(UserError, match=override):
        make_recipe(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"damping": 0.0}, r"pruner\.damping=0\.0: must be above 0"),
        ({"rho": -1.0}, r"pruner\.rho=-1\.0: must be above 0"),
        ({"stages": 0}, r"pruner\.stages=0: must be at least 1"),
        ({"stage_steps": 0}, r"pruner\.stage_steps=0: must be at least 1"),
        ({"stages": 150}, r"pruner\.stages=150: 150 × 15 steps are more than 2000; lower"),
        ({"cg_steps": -1}, r"pruner\.cg_steps=-1: must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ALPS(), **change)


def test_damping_makes_a_singular_hessian_invertible() -> None:
    pruned = ALPS().prune(random_weight(), statistics_of(torch.ones(50, COLS)), BUDGET)
    assert bool(pruned.weight.isfinite().all())


def test_estimates_count_the_products_with_the_hessian_and_one_inverse_for_each_stage() -> None:
    pruner = ALPS(stages=2, stage_steps=5, cg_steps=3)
    assert pruner.operations_per_weight(cols=7) == 2 * 7 * (2 * 5 + 3 + 2)
