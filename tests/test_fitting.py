"""Batches that do not fit are halved: the stage goes on, says so, and finds the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError
from neuroal.fitting import Batch
from neuroal.pipeline import Recipe, StageCosts, allocate_and_prune
from neuroal.pruners.masks import digest
from neuroal.pruners.wanda import Wanda
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress
from tests.tiny import random_tokens, tiny_llama

TOKENS = random_tokens(8, 16)
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def small_memory(monkeypatch: pytest.MonkeyPatch, windows: int, from_call: int = 0) -> None:
    """Let blocks fail with more windows than these, from some call on."""
    call, seen = BlockRunner.call, [0]

    def limited(self: BlockRunner, index: int, batch: int, hidden: Tensor) -> Tensor:
        seen[0] += 1
        if len(hidden) > windows and seen[0] > from_call:
            raise torch.OutOfMemoryError("CUDA out of memory (a trial)")
        return call(self, index, batch, hidden)

    monkeypatch.setattr(BlockRunner, "call", limited)


def pruned(topup: Any, batch: int = 8) -> tuple[dict[str, str], StageCosts]:
    costs = StageCosts(torch.device("cpu"))
    recipe = Recipe(Wanda(), topup, 0.6, batch=batch)
    _, result = allocate_and_prune(tiny_llama(), recipe, TOKENS[:4], TOKENS, costs, QuietProgress())
    return {key: digest(mask) for key, mask in result.masks.items()}, costs


# 8 windows are one batch, and a block takes two calls. So the batch fails in the first measurement,
# in the step after it, and in both ways in blocks that come after pruned ones.
@pytest.mark.parametrize("from_call", [0, 1, 2, 3, 5])
def test_pruning_goes_on_at_the_block_where_memory_ended(
    monkeypatch: pytest.MonkeyPatch, from_call: int
) -> None:
    wanted, costs = pruned(Uniform())
    assert costs.batch == {"prune": 8}
    assert not costs.too_large
    small_memory(monkeypatch, 2, from_call)
    with pytest.warns(UserWarning, match="going on with") as said:
        found, costs = pruned(Uniform())
    assert [str(warning.message) for warning in said] == [
        f"prune: memory does not suffice for batches of {size} windows; going on with {size // 2}"
        for size in (8, 4)
    ]
    assert found == wanted
    assert costs.to_dict()["batch"] == {"prune": 2}
    assert costs.to_dict()["too_large"] == {"prune": [8, 4]}


# With batches of 3: 3 + 3 + 2 windows; the second fails when the first has stepped on.
def test_batches_that_have_stepped_on_are_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = pruned(Uniform(), batch=3)
    small_memory(monkeypatch, 2, from_call=4)
    with pytest.warns(UserWarning, match="3 windows; going on with 1"):
        found, _ = pruned(Uniform(), batch=3)
    assert found == wanted


def test_a_search_starts_again_with_half(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = NeuroAL(step="block", block_candidates=[0.05, 0.2])
    wanted, _ = pruned(topup)
    small_memory(monkeypatch, 1, from_call=5)
    with pytest.warns(UserWarning, match="going on with") as said:
        found, costs = pruned(topup)
    assert {str(warning.message).split(":")[0] for warning in said} == {"allocate", "prune"}
    assert found == wanted
    assert costs.batch == {"allocate": 1, "prune": 1}


def test_one_window_that_does_not_fit_is_the_users_to_solve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_memory(monkeypatch, 0)
    with (
        pytest.warns(UserWarning, match="going on"),
        pytest.raises(UserError, match="use offload=blocks"),
    ):
        pruned(Uniform())


def test_other_errors_are_passed_on() -> None:
    def fail(size: int) -> None:
        raise RuntimeError("shapes differ")

    batch = Batch("prune", 4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        batch.fit(fail)
    assert batch.size == 4
