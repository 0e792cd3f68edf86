"""SparseGPT depends on neither batch nor luck, and prunes to prescribed masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import neuroal
from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import MaskRefiner, PrunedWeight, Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.sparsegpt import SparseGPT, _share
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.patterns import Pattern
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

BATCHES = (1, 4)


def weights(decoder: DecoderModel) -> list[torch.Tensor]:
    return [linear.weight.clone() for linear in decoder]


def prune(
    pruner: Pruner,
    form: str = "uniform",
    rules: Rules = Rules.EXACT,
    batch: int = 4,
    masks: PackedMasks | None = None,
    refiner: MaskRefiner | None = None,
) -> tuple[PackedMasks, list[torch.Tensor]]:
    decoder = tiny_llama(hidden_size=40, num_hidden_layers=3)
    plan = uniform_plan(decoder, 0.6)
    if form == "rows":
        rows = {lin.key: torch.linspace(0.4, 0.8, lin.rows) for lin in decoder}
        plan = SparsityPlan(dict(rows), 0.6)
    budgets = linear_budgets(plan, decoder, rules, 4 if form == "2of4" else None)
    size = AdaptiveBatch("prune", batch, divides=True)
    tokens = random_tokens(4, 24)
    method = RefinedPruner(pruner, refiner)
    result = prune_model(decoder, method, budgets, tokens, size, QuietProgress(), masks=masks)
    return result, weights(decoder)


def share_of_differences(first: PackedMasks, second: PackedMasks) -> float:
    entries = sum(int((first[key] != second[key]).sum()) for key in first)
    return entries / sum(mask.numel() for mask in first.values())


CASES = [
    ("uniform", Rules.EXACT),
    ("uniform", Rules.REFERENCE),
    ("rows", Rules.EXACT),
    ("2of4", Rules.EXACT),
    ("2of4", Rules.REFERENCE),
]


@pytest.mark.parametrize(("form", "rules"), CASES)
def test_the_masks_of_a_free_run_give_its_weights_again(form: str, rules: Rules) -> None:
    pruner = SparseGPT(block_size=17)
    masks, expected = prune(pruner, form, rules)
    again, result = prune(pruner, form, rules, masks=masks)
    assert again.digests() == masks.digests()
    assert again.differing == 0
    assert all(torch.equal(a, b) for a, b in zip(expected, result, strict=True))


@pytest.mark.parametrize(("form", "rules"), CASES)
def test_prescribed_masks_are_followed_and_differences_counted(form: str, rules: Rules) -> None:
    pruner, other = SparseGPT(block_size=17), SparseGPT(block_size=17, damping=1.0)
    masks, free = prune(pruner, form, rules)
    again, result = prune(other, form, rules, masks=masks)
    assert again.digests() == masks.digests()
    assert again.differing > 0
    assert not all(torch.equal(a, b) for a, b in zip(free, result, strict=True))
    for mask, weight in zip(masks.values(), result, strict=True):
        assert not bool(weight[mask].any())


@pytest.mark.parametrize("refiner", [None, DSnoT()])
@pytest.mark.parametrize("pruner", [Magnitude(), Wanda(), SparseGPT()])
def test_every_method_follows_its_own_masks(pruner: Pruner, refiner: MaskRefiner | None) -> None:
    masks, expected = prune(pruner, refiner=refiner)
    again, result = prune(pruner, refiner=refiner, masks=masks)
    assert (again.digests(), again.differing) == (masks.digests(), 0)
    assert all(torch.equal(a, b) for a, b in zip(expected, result, strict=True))


def test_a_pruner_that_updates_weights_without_prune_to_chooses_freely() -> None:
    class Halved(Magnitude):
        updates_weights = True

        def prune(self, *arguments: object) -> PrunedWeight:
            pruned = Magnitude().prune(*arguments)  # type: ignore[arg-type]
            return PrunedWeight(pruned.weight / 2, pruned.mask)

    masks, expected = prune(Halved())
    again, result = prune(Halved(), masks=prune(Wanda())[0])
    assert (again.digests(), again.differing) == (masks.digests(), None)
    assert all(torch.equal(a, b) for a, b in zip(expected, result, strict=True))


@pytest.mark.parametrize("name", [pytest.param("llama", marks=pytest.mark.slow), "opt"])
def test_batches_hardly_change_a_model_that_is_updated(name: str) -> None:
    folder = Path(neuroal.__file__).parent / "zoo" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = neuroal.calibration_tokens("builtin", tokenizer, windows=4, seqlen=64)
    evaluation = neuroal.calibration_tokens("builtin", tokenizer, windows=8, seqlen=64, seed=1)
    results = []
    for batch in BATCHES:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        decoder = DecoderModel(model)
        budgets = linear_budgets(uniform_plan(decoder, 0.7), decoder, Rules.EXACT)
        size = AdaptiveBatch("prune", batch, divides=True)
        masks = prune_model(decoder, SparseGPT(), budgets, tokens, size, QuietProgress())
        results.append((masks, perplexity(model, evaluation, batch=8).value))
    first, value = results[0]
    for masks, other in results[1:]:
        assert share_of_differences(first, masks) <= 0.001
        assert other == pytest.approx(value, rel=0.005)


def test_one_batch_size_gives_equal_bytes() -> None:
    first, second = prune(SparseGPT()), prune(SparseGPT())
    assert first[0].digests() == second[0].digests()
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_column_blocks_share_the_zeros_by_rounded_running_totals() -> None:
    def shares(zeros: int, cols: int, width: int) -> list[int]:
        return [_share(zeros, begin, begin + width, cols) for begin in range(0, cols, width)]

    assert shares(3, 4, 1) == [1, 1, 0, 1]  # totals 0.75, 1.5, 2.25 and 3
    assert shares(1, 4, 2) == [1, 0]  # a half is rounded up
    assert shares(7, 10, 5) == [4, 3]
    rows = _share(torch.tensor([0, 1, 3, 4]), 0, 2, 4)
    assert rows.tolist() == [0, 1, 2, 2]


def inputs(cols: int, windows: int = 2) -> InputStatistics:
    """Return statistics of random inputs, of which the second is always zero."""
    x = torch.randn(windows, 40, cols, generator=torch.Generator().manual_seed(0))
    x[..., 1] = 0
    flat = x.flatten(0, 1)
    return InputStatistics(x.square().sum(1), gram=flat.T @ flat)


def test_the_hessian_is_twice_the_mean_over_windows_damped_by_its_mean_diagonal() -> None:
    statistics = inputs(5)
    factor, dead = SparseGPT(damping=0.1).inverse_factor(statistics)
    assert statistics.gram is not None
    hessian = 2 * statistics.gram / 2
    hessian[1, 1] = 1
    hessian += torch.eye(5) * 0.1 * hessian.diagonal().mean()
    torch.testing.assert_close(factor.T @ factor, hessian.inverse(), rtol=1e-4, atol=1e-6)
    assert dead.tolist() == [False, True, False, False, False]


def test_always_zero_inputs_are_pruned_first() -> None:
    weight = torch.tensor([[1e-3, 9.0, 2.0, 3.0, 4.0]])
    budget = LinearBudget(torch.tensor([1]), 0.2, Rules.EXACT)
    mask = SparseGPT().initial_mask(weight, inputs(5), budget)
    assert mask.tolist() == [[False, True, False, False, False]]
    pruned = SparseGPT().prune(weight, inputs(5), budget)
    assert torch.equal(pruned.mask, mask)
    assert pruned.weight[0, 1] == 0


def test_the_initial_mask_has_the_lowest_squares_of_weights_over_factors() -> None:
    """d² is about 1/2 and 1/0.3, so that w²/d² is lower for the second weight, but not w²/d."""
    weight = torch.tensor([[1.0, 2.0]])
    statistics = InputStatistics(torch.ones(1, 2), gram=torch.tensor([1.0, 0.15]).diag())
    budget = LinearBudget(torch.tensor([1]), 0.5, Rules.EXACT)
    assert SparseGPT().initial_mask(weight, statistics, budget).tolist() == [[False, True]]


def test_under_reference_rules_every_column_block_has_one_zero_more_than_its_share() -> None:
    pruner = SparseGPT(block_size=4)
    budget = LinearBudget(torch.tensor([4, 4]), 0.5, Rules.REFERENCE)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[0], mask[1, 3], mask[1, 7] = True, True, True
    assert bool(pruner.meets(mask, budget))  # 5 of 8 entries in both blocks
    mask[1, 7] = False
    assert not bool(pruner.meets(mask, budget))


@pytest.mark.parametrize(("block_size", "width"), [(2, 4), (8, 8), (11, 8)])
def test_a_column_block_holds_whole_groups_of_a_pattern(block_size: int, width: int) -> None:
    assert SparseGPT(block_size=block_size)._width(Pattern(2, 4)) == width
    assert SparseGPT(block_size=block_size)._width(None) == block_size
