"""Batches that do not fit are halved: the stage goes on, says so, and finds the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.fitting import Batch
from neuroal.pipeline import Recipe, StageCosts, allocate_and_prune
from neuroal.pruners.wanda import Wanda
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.tiny import random_tokens, tiny_llama

TOKENS = random_tokens(8, 16)


@dataclass
class Memory:
    """Room for the activations of so many windows; batches before `begins` still find more."""

    windows: int
    begins: int = 0
    larger: int = 0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.larger += len(inputs[0]) > self.windows
        if len(inputs[0]) > self.windows and self.larger > self.begins:
            raise torch.OutOfMemoryError("CUDA out of memory (a trial)")


def pruned(
    topup: Any, batch: int = 8, memory: Memory | None = None
) -> tuple[dict[str, str], StageCosts]:
    subject, costs = tiny_llama(), StageCosts(torch.device("cpu"))
    for block in subject.blocks if memory else ():
        block.mlp.register_forward_pre_hook(memory)
    recipe = Recipe(Wanda(), topup, 0.6, batch=batch)
    _, result = allocate_and_prune(subject, recipe, TOKENS[:4], TOKENS, costs, QuietProgress())
    return result.masks.digests(), costs


# 8 windows are one batch, and a block takes two passes. So the batch fails in the measurement of
# the first block, in the step after it, and in both ways in blocks that come after pruned ones.
@pytest.mark.parametrize("begins", [0, 1, 2, 3, 5])
def test_pruning_goes_on_at_the_block_where_memory_ended(begins: int) -> None:
    wanted, costs = pruned(Uniform())
    assert costs.batch == {"prune": 8}
    assert not costs.too_large
    with pytest.warns(UserWarning, match="going on with") as said:
        found, costs = pruned(Uniform(), memory=Memory(2, begins))
    assert [str(warning.message) for warning in said] == [
        f"prune: memory does not suffice for batches of {size} windows; going on with {size // 2}"
        for size in (8, 4)
    ]
    assert found == wanted
    assert costs.to_dict()["batch"] == {"prune": 2}
    assert costs.to_dict()["too_large"] == {"prune": [8, 4]}


# With batches of 3: 3 + 3 + 2 windows; the second fails when the first has stepped on.
def test_batches_that_have_stepped_on_are_not_taken_twice() -> None:
    wanted, _ = pruned(Uniform(), batch=3)
    with pytest.warns(UserWarning, match="3 windows; going on with 1"):
        found, _ = pruned(Uniform(), 3, Memory(2, begins=3))
    assert found == wanted


def test_a_search_starts_again_with_half() -> None:
    topup = NeuroAL(step="block", block_candidates=[0.05, 0.2])
    wanted, _ = pruned(topup)
    with pytest.warns(UserWarning, match="going on with") as said:
        found, costs = pruned(topup, memory=Memory(1, begins=5))
    assert {str(warning.message).split(":")[0] for warning in said} == {"allocate", "prune"}
    assert found == wanted
    assert costs.batch == {"allocate": 1, "prune": 1}


def test_one_window_that_does_not_fit_is_the_users_to_solve() -> None:
    with (
        pytest.warns(UserWarning, match="going on"),
        pytest.raises(UserError, match="use offload=blocks"),
    ):
        pruned(Uniform(), memory=Memory(0))


def test_other_errors_are_passed_on() -> None:
    def fail(size: int) -> None:
        raise RuntimeError("shapes differ")

    batch = Batch("prune", 4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        batch.fit(fail)
    assert batch.size == 4
