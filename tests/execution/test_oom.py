"""Batches that run out of memory are halved with a warning, and the results stay the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.execution.costs import StageCosts
from neuroal.execution.oom import AdaptiveBatch
from neuroal.pipeline import Recipe, allocate, prune
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.wanda import Wanda
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

TOKENS = random_tokens(8, 16)


@dataclass
class Memory:
    """Forward hook that simulates a limited memory.

    Attributes:
        windows: largest batch that fits.
        begins: number of larger batches that fit before the limit applies.
        larger: number of larger batches so far.
    """

    windows: int
    begins: int = 0
    larger: int = 0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.larger += len(inputs[0]) > self.windows
        if len(inputs[0]) > self.windows and self.larger > self.begins:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")


def prune_tiny_llama(
    topup: Any, batch: int = 8, memory: Memory | None = None
) -> tuple[dict[str, str], StageCosts]:
    """Return the digests of the masks and the costs."""
    decoder, costs = tiny_llama(), StageCosts(torch.device("cpu"))
    for block in decoder.blocks if memory else ():
        block.mlp.register_forward_pre_hook(memory)
    recipe = Recipe(PruningSettings(Wanda(), 0.6, batch=batch), topup)
    allocation = allocate(decoder, recipe, TOKENS[:4], costs, QuietProgress())
    masks = prune(decoder, recipe, allocation, TOKENS, costs, QuietProgress())
    return masks.digests(), costs


# The 8 windows are one batch, and each block takes two passes. So the batch fails when the first
# block is measured or run, or when a later block is measured or run after pruned ones.
@pytest.mark.parametrize("begins", [0, 1, 2, 3, 5])
def test_pruning_continues_at_the_block_that_ran_out_of_memory(begins: int) -> None:
    expected, costs = prune_tiny_llama(Uniform())
    assert costs.batch == {"prune": 8}
    assert not costs.too_large
    with pytest.warns(UserWarning, match="continuing with") as warned:
        masks, costs = prune_tiny_llama(Uniform(), memory=Memory(2, begins))
    assert [str(warning.message) for warning in warned] == [
        f"prune: memory does not suffice for batches of {size} windows; continuing with {size // 2}"
        for size in (8, 4)
    ]
    assert masks == expected
    assert costs.to_dict()["batch"] == {"prune": 2}
    assert costs.to_dict()["too_large"] == {"prune": [8, 4]}


# The batches have 3 + 3 + 2 windows; the second fails after the first has passed the block.
def test_batches_that_have_passed_a_block_do_not_run_again() -> None:
    expected, _ = prune_tiny_llama(Uniform(), batch=3)
    with pytest.warns(UserWarning, match="3 windows; continuing with 1"):
        masks, _ = prune_tiny_llama(Uniform(), 3, Memory(2, begins=3))
    assert masks == expected


def test_a_search_restarts_with_half_the_batch() -> None:
    topup = NeuroAL(step="block", block_candidates=[0.05, 0.2])
    expected, _ = prune_tiny_llama(topup)
    with pytest.warns(UserWarning, match="continuing with") as warned:
        masks, costs = prune_tiny_llama(topup, memory=Memory(1, begins=5))
    assert {str(warning.message).split(":")[0] for warning in warned} == {"allocate", "prune"}
    assert masks == expected
    assert costs.batch == {"allocate": 1, "prune": 1}


def test_a_single_window_that_does_not_fit_is_a_user_error() -> None:
    with (
        pytest.warns(UserWarning, match="continuing with"),
        pytest.raises(UserError, match="use offload=blocks"),
    ):
        prune_tiny_llama(Uniform(), memory=Memory(0))


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
    ],
)
def test_an_allocation_outside_of_torch_that_fails_halves_the_batch(message: str) -> None:
    def allocate(size: int) -> int:
        if size > 2:
            raise RuntimeError(message)
        return size

    with pytest.warns(UserWarning, match="batches of 4 windows; continuing with 2"):
        assert AdaptiveBatch("evaluate", 4).run(allocate) == 2


def test_other_errors_propagate() -> None:
    def fail(size: int) -> None:
        raise RuntimeError("shapes differ")

    batch = AdaptiveBatch("prune", 4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        batch.run(fail)
    assert batch.size == 4
