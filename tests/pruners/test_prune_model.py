"""Blocks are pruned one after another, by one device or by several."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.peers import Peers
from neuroal.pruners import prune_model as module
from neuroal.pruners.prune_model import _masks_of_all, apply_masks, prune_model
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


def test_blocks_are_present_for_writing_while_their_weights_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = []

    def recorded(_: DecoderModel, index: int, *, writes: bool = False) -> nullcontext[None]:
        written.extend([index] * writes)
        return nullcontext()

    monkeypatch.setattr(DecoderModel, "present", recorded)
    context = allocation_context(tiny_llama())
    budgets = context.budgets(uniform_plan(context.decoder, 0.6))
    size = AdaptiveBatch("prune", 4, divides=True)
    prune_model(context.decoder, Wanda(), budgets, context.tokens, size, QuietProgress())
    assert written == [0, 1, 2, 3]


def test_stored_masks_set_their_weights_to_zero_and_no_others() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    before = [linear.weight.clone() for linear in decoder]
    masks = {linear.key: linear.weight < 0.01 for linear in decoder}
    apply_masks(decoder, masks)
    for linear, weight in zip(decoder, before, strict=True):
        assert torch.equal(linear.weight, weight.where(weight >= 0.01, 0))
