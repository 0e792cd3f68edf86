"""Blocks are pruned one after another, by one device or by several."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuroal.execution.oom import AdaptiveBatch
from neuroal.parallel.peers import Peers
from neuroal.pruners import prune_model as module
from neuroal.pruners.prune_model import _masks_of_all, prune_model
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress
from tests.small_models import allocation_context, tiny_llama


def test_the_output_of_the_last_block_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    advance, advanced = module.Replay.advance, []

    def recorded(self: module.Replay, index: int) -> None:
        advanced.append(index)
        advance(self, index)

    monkeypatch.setattr(module.Replay, "advance", recorded)
    context = allocation_context(tiny_llama())
    budgets = context.budgets(uniform_plan(context.decoder, 0.6))
    size = AdaptiveBatch("prune", 4, divides=True)
    prune_model(context.decoder, Wanda(), budgets, context.tokens, size, QuietProgress())
    assert advanced == [0, 1, 2]


def test_masks_and_weights_that_another_device_pruned_are_received() -> None:
    class First(Peers):
        size = 2

        def receive(self, tensor: Tensor, source: int) -> None:
            if source == 1:
                tensor.fill_(1)

    linear, other = tiny_llama().linears[0][:2]
    own = {(linear,): torch.zeros(1, *linear.weight.shape, dtype=torch.bool)}
    parts = [(linear,), (other,)]
    masks = dict(_masks_of_all(First(), parts, [0, 1], own))
    assert not bool(masks[(linear,)].any())
    assert masks[(other,)].shape == (1, *other.weight.shape)
    assert bool(masks[(other,)].all())
    assert bool((other.weight == 1).all())
    assert not bool((linear.weight == 1).any())
