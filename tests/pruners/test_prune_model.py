"""Blocks are pruned one after another, by one device or by several."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import neuroal
from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.peers import Peers
from neuroal.pruners import prune_model as module
from neuroal.pruners.base import Factors, Pruner
from neuroal.pruners.prune_model import _masks_of_all, apply_masks, prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress
from tests.small_models import allocation_context, random_tokens, tiny_llama


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


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("pruner", ["wanda", "multiflow", "sparsegpt", "alps", "wanda + dsnot"])
def test_inputs_that_are_not_finite_are_named_by_every_method(pruner: str, block: int) -> None:
    decoder = tiny_llama()
    decoder.model.model.layers[block].input_layernorm.weight.data.fill_(1e30)
    name, _, refine = pruner.partition(" + ")
    message = rf"input of '{block}\.self_attn\.q_proj' is NaN or infinite on the calibration"
    with pytest.raises(UserError, match=message):
        neuroal.prune(
            decoder.model,
            random_tokens(2, 16),
            pruner=name,
            topup="uniform",
            **({"refine": refine} if refine else {}),
        )


@dataclass(frozen=True)
class Strict(Wanda):
    """A pruner of a user, which fails if its input is not finite."""

    def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
        factors = super().factors(weight, statistics)
        assert factors.cols is not None
        assert factors.cols.isfinite().all()
        return factors


def test_inputs_that_are_not_finite_are_named_before_a_users_method_fails_on_them() -> None:
    decoder = tiny_llama()
    decoder.model.model.layers[0].input_layernorm.weight.data.fill_(1e30)
    with pytest.raises(UserError, match=r"input of .* is NaN or infinite"):
        neuroal.prune(decoder.model, random_tokens(2, 16), pruner=Strict(), topup="uniform")


@pytest.mark.parametrize(("pruner", "checks_later"), [(Wanda(), True), (SparseGPT(), False)])
def test_a_check_of_inputs_waits_for_nothing_unless_the_method_would_fail(
    pruner: Pruner, checks_later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    for owner, name in ((module.Replay, "advance"), (module.PruningChecks, "read")):
        real = getattr(owner, name)

        def recorded(*arguments: Any, real: Any = real, name: str = name) -> None:
            events.append(name)
            real(*arguments)

        monkeypatch.setattr(owner, name, recorded)
    decoder = tiny_llama()
    decoder.model.model.layers[0].input_layernorm.weight.data.fill_(1e30)
    context = allocation_context(decoder)
    budgets = context.budgets(uniform_plan(decoder, 0.6))
    size = AdaptiveBatch("prune", 4, divides=True)
    with pytest.raises(UserError, match="is NaN or infinite"):
        prune_model(decoder, pruner, budgets, context.tokens, size, QuietProgress())
    assert events == (["advance", "read"] if checks_later else [])
