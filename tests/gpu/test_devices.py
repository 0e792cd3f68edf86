"""Several GPUs give the results of one: to the last bit where candidates are shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import neuroal
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.costs import StageCosts
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices
from neuroal.parallel.replicated import replicated, together
from neuroal.pipeline import Recipe, allocate, prune
from neuroal.pruners.base import Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.base import TopUp
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.parallel import stages
from tests.routed import routed
from tests.small_models import random_tokens, tiny_llama

pytestmark = [
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
    pytest.mark.filterwarnings("ignore:topup=marginal fits only"),
]
GPU = torch.device("cuda", 0)
TOKENS = random_tokens(8, 128, vocabulary=512)


def model_on_gpu() -> DecoderModel:
    decoder = tiny_llama(
        vocab_size=512, hidden_size=256, intermediate_size=688, max_position_embeddings=512
    )
    decoder.model.to(GPU, torch.float16)
    return decoder


@pytest.fixture(scope="module")
def shared() -> Iterator[DecoderModel]:
    """Yield a model on all GPUs."""
    decoder = model_on_gpu()
    with replicated(decoder.model, pick_devices(GPU, torch.cuda.device_count())):
        yield decoder


def allocated(decoder: DecoderModel, topup: TopUp, pruner: Pruner) -> Allocation:
    recipe = Recipe(PruningSettings(pruner, 0.6, batch=4), topup)
    return allocate(decoder, recipe, TOKENS, StageCosts(GPU), QuietProgress())


def flat(allocation: Allocation) -> torch.Tensor:
    ratios = allocation.plan.ratios.values()
    return torch.cat([torch.as_tensor(ratio).double().reshape(-1) for ratio in ratios])


def test_every_gpu_computes_its_share(shared: DecoderModel) -> None:
    tokens = TOKENS[:5]
    joined = together(shared, stages.sums_of_logits, tokens, progress=None)
    alone = stages.sums_of_logits(model_on_gpu(), tokens, progress=None)
    torch.testing.assert_close(joined, alone, rtol=1e-2, atol=1.0)


@pytest.mark.parametrize("pruner", [Wanda(), SparseGPT()])
def test_a_search_gives_the_result_of_one_gpu_to_the_last_bit(
    shared: DecoderModel, pruner: Pruner
) -> None:
    alone = allocated(model_on_gpu(), NeuroAL(), pruner)
    for _ in range(2):
        together = allocated(shared, NeuroAL(), pruner)
        assert together.report == alone.report
        assert torch.equal(flat(together), flat(alone))


@pytest.mark.parametrize(
    "topup", [Fisher(rounds=2, windows=4), EqualMarginals(row_iterations=3, windows=4)]
)
def test_shared_windows_give_the_plan_of_one_gpu_up_to_rounding(
    shared: DecoderModel, topup: TopUp
) -> None:
    alone, first = allocated(model_on_gpu(), topup, Wanda()), allocated(shared, topup, Wanda())
    assert (flat(first) - flat(alone)).abs().mean() < 5e-3
    again = allocated(shared, topup, Wanda())
    assert (flat(first) - flat(again)).abs().max() < 1e-3


@pytest.mark.parametrize("pruner", [Wanda(), SparseGPT()])
def test_masks_and_losses_are_those_of_one_gpu(pruner: Pruner) -> None:
    recipe = Recipe(PruningSettings(pruner, 0.5, batch=4), Uniform())
    results = []
    for count in (1, torch.cuda.device_count()):
        decoder = model_on_gpu()
        allocation = Allocation(uniform_plan(decoder, 0.5))
        with replicated(decoder.model, pick_devices(GPU, count)):
            masks = prune(decoder, recipe, allocation, TOKENS, StageCosts(GPU), QuietProgress())
            loss = perplexity(decoder.model, TOKENS, 2)
        results.append((masks, loss))
    (masks, loss), (masks_of_all, loss_of_all) = results
    agreement = [(masks[key] == masks_of_all[key]).double().mean() for key in masks]
    # Gram matrices are summed in another order, and blocks see the weights of the blocks before.
    assert min(agreement) > (0.97 if isinstance(pruner, SparseGPT) else 0.99)
    assert loss_of_all.value == pytest.approx(loss.value, rel=1e-2)


def test_a_killed_process_ends_the_run_in_one_line() -> None:
    decoder = model_on_gpu()
    with (
        replicated(decoder.model, pick_devices(GPU, 2)),
        pytest.raises(UserError, match=r"^devices=2: the process of cuda:1 ended"),
    ):
        together(decoder, stages.killed, 1, progress=None)


def test_compiled_blocks_give_the_same_search_on_every_gpu(shared: DecoderModel) -> None:
    alone = model_on_gpu()
    together(alone, stages.compile_blocks_of_any_size, progress=None)
    together(shared, stages.compile_blocks_of_any_size, progress=None)
    report = allocated(alone, NeuroAL(step="block"), Wanda()).report
    assert allocated(shared, NeuroAL(step="block"), Wanda()).report == report
    assert alone.memo["compiled"].runs > 0
    assert shared.memo["compiled"].runs > 0


def test_a_model_on_several_gpus_gives_the_results_of_host_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuroal.placement.devices.SHARE", 1e-4)  # one or two blocks on each
    results = []
    for options in ({"offload": "blocks"}, {"offload": "devices", "devices": 2}):
        model = model_on_gpu().model
        result = neuroal.prune(model, TOKENS, sparsity=0.6, batch=4, device="cuda:0", **options)
        results.append((result.report, {key: result.masks[key] for key in result.masks}))
    assert results[0][0] == results[1][0]
    for key, mask in results[0][1].items():
        assert torch.equal(mask, results[1][1][key])


@pytest.mark.filterwarnings("ignore:block .* saw fewer")
@pytest.mark.parametrize("pruner", ["wanda", "sparsegpt"])
def test_experts_are_pruned_by_the_tokens_of_all_gpus(pruner: str) -> None:
    results = [
        neuroal.prune(
            routed("mixtral").to(GPU),
            random_tokens(8, 48),
            pruner=pruner,
            topup="owl",
            sparsity=0.5,
            devices=devices,
        )
        for devices in (1, torch.cuda.device_count())
    ]
    masks = [result.masks for result in results]
    differing = sum(int((mask != masks[1][key]).sum()) for key, mask in masks[0].items())
    assert differing <= 0.005 * sum(mask.numel() for mask in masks[0].values())
    assert results[0].sparsity == results[1].sparsity
