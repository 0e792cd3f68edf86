"""Fisher, marginal, pruning and evaluation on several devices, against one device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.costs import StageCosts
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices
from neuroal.parallel.replicated import replicated
from neuroal.pipeline import Recipe, allocate, prune
from neuroal.pruners.base import Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.base import TopUp
from neuroal.topups.dlp import DLP
from neuroal.topups.evolve import Evolve
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.owl import OWL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.routed import routed
from tests.small_models import random_tokens, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:topup=marginal fits only")
CPU = torch.device("cpu")
TOKENS = random_tokens(8, 24)


@pytest.fixture(scope="module", params=[3, pytest.param(2, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest) -> Iterator[DecoderModel]:
    """Yield a small model on several devices; three do not divide the windows of any test."""
    decoder = tiny_llama()
    with replicated(decoder.model, pick_devices(CPU, request.param)):
        yield decoder


def allocated(decoder: DecoderModel, topup: TopUp, **settings: Any) -> Allocation:
    recipe = Recipe(PruningSettings(Wanda(), **{"sparsity": 0.6, "batch": 3, **settings}), topup)
    return allocate(decoder, recipe, TOKENS, StageCosts(CPU), QuietProgress())


def flat(allocation: Allocation) -> torch.Tensor:
    ratios = allocation.plan.ratios.values()
    return torch.cat([torch.as_tensor(ratio).double().reshape(-1) for ratio in ratios])


short = {"row_iterations": 3, "windows": 4}
TOPUPS: dict[str, TopUp] = {
    "fisher": Fisher(rounds=2, windows=4, skip=2),
    "fisher elementwise": Fisher(rounds=2, windows=4, skip=2, form="elementwise"),
    "fisher on two windows": Fisher(rounds=2, windows=2, skip=2),
    "marginal": EqualMarginals(**short),
    "marginal by linear": EqualMarginals("first", linear_iterations=2, windows=4, row_iterations=2),
    "marginal of the text": EqualMarginals(objective="cross_entropy", **short),
    "marginal by fisher": EqualMarginals(curvature="fisher", **short),
    "marginal by block error": EqualMarginals(objective="block_error", **short),
    "marginal reranked": EqualMarginals(rerank=1, **short),
    "evolve": Evolve(passes=6, windows=4),
}


@pytest.mark.parametrize("name", TOPUPS)
def test_the_plan_is_that_of_one_device_up_to_rounding(shared: DecoderModel, name: str) -> None:
    topup = TOPUPS[name]
    alone, together = allocated(tiny_llama(), topup), allocated(shared, topup)
    torch.testing.assert_close(flat(together), flat(alone), rtol=0, atol=0.03)
    assert (flat(together) - flat(alone)).abs().mean() < 1e-3
    for key, value in alone.report.items():
        if isinstance(value, list) and value and isinstance(value[0], float):
            assert together.report[key] == pytest.approx(value, rel=1e-3), key


def test_the_plan_for_updated_weights_is_that_of_one_device(shared: DecoderModel) -> None:
    recipe = Recipe(
        PruningSettings(SparseGPT(block_size=8), 0.6, batch=3), EqualMarginals(rerank=2, **short)
    )
    alone, together = (
        allocate(decoder, recipe, TOKENS, StageCosts(CPU), QuietProgress())
        for decoder in (tiny_llama(), shared)
    )
    torch.testing.assert_close(flat(together), flat(alone), rtol=0, atol=0.05)
    assert (flat(together) - flat(alone)).abs().mean() < 3e-3
    expected = alone.report["objective_row"]
    assert together.report["objective_row"] == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("topup", [OWL(), DLP()])
def test_scores_of_blocks_are_those_of_one_device(shared: DecoderModel, topup: TopUp) -> None:
    alone, together = allocated(tiny_llama(), topup), allocated(shared, topup)
    assert flat(together).tolist() == pytest.approx(flat(alone).tolist(), abs=1e-6)


def test_a_plan_is_the_same_each_time(shared: DecoderModel) -> None:
    topup = EqualMarginals(**short)
    first, second = allocated(shared, topup), allocated(shared, topup)
    assert torch.equal(flat(first), flat(second))
    assert first.report == second.report


PRUNERS: dict[str, tuple[Pruner, DSnoT | None]] = {
    "wanda": (Wanda(), None),
    "magnitude": (Magnitude(), None),
    "sparsegpt": (SparseGPT(), None),
    "dsnot": (Wanda(), DSnoT()),
}


@pytest.fixture
def dense(shared: DecoderModel) -> Iterator[DecoderModel]:
    """Yield `shared`, and restore its weights, which all devices share, after a test."""
    before = [linear.weight.clone() for linear in shared]
    yield shared
    for linear, weight in zip(shared, before, strict=True):
        linear.weight = weight


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("windows", [2, 8])
def test_pruned_weights_masks_and_losses_are_those_of_one_device(
    dense: DecoderModel, name: str, windows: int
) -> None:
    pruner, refiner = PRUNERS[name]
    recipe = Recipe(PruningSettings(pruner, 0.5, batch=4), Uniform(), refiner)
    results = []
    for decoder in (tiny_llama(), dense):
        allocation = Allocation(uniform_plan(decoder, 0.5))
        costs, progress = StageCosts(CPU), QuietProgress()
        masks = prune(decoder, recipe, allocation, TOKENS[:windows], costs, progress)
        loss = perplexity(decoder.model, random_tokens(5, 16, seed=1), 2)
        results.append((masks, decoder, loss))
    (masks, decoder, loss), (masks_of_all, decoder_of_all, loss_of_all) = results
    assert list(masks_of_all) == list(masks)
    assert masks_of_all.sparsity == masks.sparsity
    for mine, theirs in zip(decoder, decoder_of_all, strict=True):
        agreement = (masks[mine.key] == masks_of_all[mine.key]).double().mean()
        assert agreement > 0.999
        if agreement == 1:
            torch.testing.assert_close(mine.weight, theirs.weight)
        assert not theirs.weight[masks_of_all[mine.key]].any()
    assert loss_of_all.value == pytest.approx(loss.value, rel=1e-4)
    assert loss_of_all.windows == 5


@pytest.fixture(scope="module")
def experts() -> Iterator[DecoderModel]:
    """Yield a model with experts on three devices, whose windows reach them with other tokens."""
    decoder = DecoderModel(routed("mixtral"))
    with replicated(decoder.model, pick_devices(CPU, 3)):
        yield decoder


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("windows", [2, 8])
def test_experts_are_pruned_by_the_tokens_of_all_devices(
    experts: DecoderModel, name: str, windows: int
) -> None:
    pruner, refiner = PRUNERS[name]
    recipe = Recipe(PruningSettings(pruner, 0.5, batch=2), Uniform(), refiner)
    before = [linear.weight.clone() for linear in experts]
    results = []
    for decoder in (DecoderModel(routed("mixtral")), experts):
        allocation = Allocation(uniform_plan(decoder, 0.5))
        costs, progress = StageCosts(CPU), QuietProgress()
        results.append(prune(decoder, recipe, allocation, TOKENS[:windows], costs, progress))
    masks, masks_of_all = results
    assert list(masks_of_all) == list(masks)
    assert masks_of_all.sparsity == masks.sparsity
    for linear, weight in zip(experts, before, strict=True):
        assert (masks[linear.key] == masks_of_all[linear.key]).double().mean() > 0.998
        assert not linear.weight[masks_of_all[linear.key]].any()
        linear.weight = weight


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize(
    "topup",
    [OWL(), TOPUPS["fisher"], TOPUPS["marginal"], NeuroAL(row_candidates=[0.0, 0.1])],
    ids=lambda topup: topup.name,
)
def test_plans_of_experts_are_those_of_one_device(experts: DecoderModel, topup: TopUp) -> None:
    alone, together = allocated(DecoderModel(routed("mixtral")), topup), allocated(experts, topup)
    torch.testing.assert_close(flat(together), flat(alone), rtol=0, atol=0.03)


def test_pruning_to_masks_of_an_earlier_run_counts_the_entries_of_all_devices(
    dense: DecoderModel,
) -> None:
    recipe = Recipe(PruningSettings(SparseGPT(), 0.5, batch=4), Uniform())
    allocation = Allocation(uniform_plan(dense, 0.5))
    costs, progress = StageCosts(CPU), QuietProgress()
    masks = prune(tiny_llama(), recipe, allocation, TOKENS, costs, progress)
    again = prune(dense, recipe, allocation, TOKENS, costs, progress, masks=masks)
    assert again.digests() == masks.digests()
    assert again.differing <= 0.001 * dense.numel
