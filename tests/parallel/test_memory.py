"""If one of several devices runs out of memory, all of them continue on smaller batches."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.costs import StageCosts
from neuroal.models.devices import pick_devices
from neuroal.parallel.replicated import replicated
from neuroal.pipeline import Recipe, allocate, prune
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.wanda import Wanda
from neuroal.topups.base import TopUp
from neuroal.topups.fisher import Fisher
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")
TOKENS = random_tokens(8, 16)


@dataclass
class MemoryOfOthers:
    """Forward hook that simulates a memory for `windows` on one of the two devices.

    Attributes:
        on_first: whether the memory is that of the first device.
    """

    windows: int
    on_first: bool
    first: int = field(default_factory=os.getpid)

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        is_first = os.getpid() == self.first
        if is_first == self.on_first and len(inputs[0]) > self.windows:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")


@pytest.mark.parametrize("on_first", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("topup", "allocated"), [(Fisher(rounds=1, windows=8, skip=0), 2), (NeuroAL(step="block"), 2)]
)
@pytest.mark.filterwarnings("ignore:.*memory does not suffice")
def test_all_devices_halve_their_batches(topup: TopUp, allocated: int, on_first: bool) -> None:
    recipe = Recipe(PruningSettings(Wanda(), 0.6, batch=4), topup)
    results = []
    for limited in (False, True):
        decoder = tiny_llama()
        for block in decoder.blocks if limited else ():
            block.mlp.register_forward_pre_hook(MemoryOfOthers(2, on_first))
        with replicated(decoder.model, pick_devices(CPU, 2)):
            costs, progress = StageCosts(CPU), QuietProgress()
            allocation = allocate(decoder, recipe, TOKENS, costs, progress)
            masks = prune(decoder, recipe, allocation, TOKENS, costs, progress)
            loss = perplexity(decoder.model, random_tokens(8, 16, seed=1), 4)
        results.append((masks, costs, loss))
    (masks, _, loss), (masks_again, costs, loss_again) = results
    assert costs.batch == {"allocate": allocated, "prune": 2}
    assert costs.too_large == {"allocate": [4], "prune": [4]}
    assert loss_again.value == pytest.approx(loss.value, rel=1e-3)
    agreement = [(masks[key] == masks_again[key]).double().mean() for key in masks]
    assert min(agreement) > 0.99


def test_memory_that_does_not_suffice_for_one_window_is_an_error_of_the_user() -> None:
    decoder = tiny_llama()
    decoder.blocks[0].mlp.register_forward_pre_hook(MemoryOfOthers(0, False))
    recipe = Recipe(PruningSettings(Wanda(), 0.6, batch=1), Uniform())
    allocation = allocate(decoder, recipe, TOKENS, StageCosts(CPU), QuietProgress())
    with (
        replicated(decoder.model, pick_devices(CPU, 2)),
        pytest.raises(UserError, match=r"^prune: memory does not suffice for a single window"),
    ):
        prune(decoder, recipe, allocation, TOKENS, StageCosts(CPU), QuietProgress())
