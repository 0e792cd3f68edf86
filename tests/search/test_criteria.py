"""Criteria on the logits equal those from a plain forward pass of the pruned model."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.runner import BlockRunner
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.prune_model import prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.search.criteria.make import make_criterion
from neuroal.search.criteria.output import OutputPerplexity
from neuroal.sparsity.budget import Rules
from neuroal.topups.atp import ATP, progression, slopes
from neuroal.topups.neuroal import NeuroAL, block_plan
from neuroal.tracking import QuietProgress
from tests.architectures import ARCHITECTURES, build
from tests.small_models import allocation_context, check, random_tokens, tiny_llama

TOKENS = random_tokens(5, 24)


@torch.no_grad()
def plain_criterion(name: str, decoder: DecoderModel, pruner: Pruner, lambda_: float) -> float:
    """Prune a copy of the model, run it as a whole and compare its logits."""
    context = allocation_context(decoder, pruner, tokens=TOKENS, batch=2)
    dense: Tensor = decoder.model(TOKENS).logits.double()
    pruned = DecoderModel(copy.deepcopy(decoder.model))
    budgets = context.budgets(block_plan(context, lambda_))
    prune_model(
        pruned, pruner, budgets, TOKENS, AdaptiveBatch("prune", 2, divides=True), QuietProgress()
    )
    sparse: Tensor = pruned.model(TOKENS).logits.double()
    if name == "perplexity":
        loss = torch.nn.functional.cross_entropy(
            sparse[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()
        )
        return float(loss.exp())
    ratio = dense.log_softmax(-1) - sparse.log_softmax(-1)
    return float((dense.softmax(-1) * ratio).sum(-1).mean())


@pytest.mark.parametrize("name", ["output_kl", "perplexity"])
@pytest.mark.parametrize(
    "pruner", [Magnitude(), Wanda(), SparseGPT()], ids=lambda p: type(p).__name__
)
def test_criteria_equal_those_of_pruning_and_running_the_whole_model(
    name: str, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.execution.lm_head.CHUNK", 7)
    decoder = tiny_llama()
    context = allocation_context(decoder, pruner, tokens=TOKENS, batch=2)
    runner = BlockRunner.capture(decoder, TOKENS, 2)
    criterion = make_criterion(name, context, runner)
    for lambda_ in (0.05, 0.2):
        value = criterion.evaluate(context.budgets(block_plan(context, lambda_))).criterion
        assert value == pytest.approx(plain_criterion(name, decoder, pruner, lambda_), rel=1e-4)


@pytest.mark.parametrize("model_type", ["opt", "phi", "gemma2", "bloom", "falcon", "qwen3"])
def test_criteria_use_the_head_of_every_architecture(model_type: str) -> None:
    decoder = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    context = allocation_context(decoder, Magnitude(), tokens=TOKENS, batch=2)
    criterion = make_criterion("perplexity", context, BlockRunner.capture(decoder, TOKENS, 2))
    value = criterion.evaluate(context.budgets(block_plan(context, 0.1))).criterion
    expected = plain_criterion("perplexity", decoder, Magnitude(), 0.1)
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("criterion", ["alignment", "output_kl", "perplexity"])
def test_neuroal_chooses_the_best_candidate_by_each_criterion(criterion: str) -> None:
    decoder = tiny_llama()
    before = [linear.weight.clone() for linear in decoder]
    topup = NeuroAL(criterion=criterion, block_candidates=[0.02, 0.1, 0.2], row_candidates=[0, 0.1])
    report = topup.allocate(allocation_context(decoder)).report
    for step in ("block", "row"):
        criteria = report[f"criterion_{step}"]
        best = min(range(len(criteria)), key=criteria.__getitem__)
        assert report[f"lambda_{step}"] == report[f"candidates_{step}"][best]
    for linear, weight in zip(decoder, before, strict=True):
        assert torch.equal(linear.weight, weight)
    assert topup.allocate(allocation_context(decoder)).report == report


def test_the_row_step_uses_alignment_differences_under_every_criterion() -> None:
    decoder = tiny_llama()
    plans = [
        NeuroAL(step="row", criterion=criterion, row_candidates=[0.1])
        .allocate(allocation_context(decoder))
        .plan.to_dict()
        for criterion in ("alignment", "output_kl")
    ]
    assert plans[0] == plans[1]


def test_rows_with_updates_gives_sparsegpt_ratios_per_row() -> None:
    context = allocation_context(tiny_llama(), SparseGPT())
    topup = NeuroAL(row_candidates=[0.1], block_candidates=[0.1], rows_with_updates=True)
    check(topup, SparseGPT(), 0.6, Rules.EXACT)
    assert topup.allocate(context).plan.per_row()
    with pytest.raises(UserError, match="rules=exact"):
        check(topup, SparseGPT(), 0.6, Rules.REFERENCE)


def test_errors_name_unknown_criteria() -> None:
    with pytest.raises(UserError, match=r"did you mean 'output_kl'"):
        NeuroAL(criterion="output-kl")
    with pytest.raises(UserError, match=r"topup\.criterion=ppl"):
        ATP(criterion="ppl")


def test_atp_candidates_grow_by_a_fixed_step_and_stay_within_bounds() -> None:
    assert slopes(32, 0.7, 0.002) == pytest.approx([0.002 * k for k in range(1, 10)])
    assert slopes(5, 0.5, 0.05) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
    assert slopes(1, 0.5, 0.002) == []
    context = allocation_context(tiny_llama(), sparsity=0.7)
    plan = progression(context, 0.1)
    ratios = [float(plan.ratios[f"{block}.mlp.up_proj"]) for block in range(4)]
    assert ratios == pytest.approx([0.55, 0.65, 0.75, 0.85])


def test_atp_chooses_the_slope_of_lowest_perplexity() -> None:
    report = ATP(step=0.05).allocate(allocation_context(tiny_llama())).report
    assert len(report["candidates"]) == 5
    best = min(range(5), key=report["criteria"].__getitem__)
    assert report["beta"] == report["candidates"][best]


def test_atp_is_uniform_for_a_single_block() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    assert set(ATP().allocate(allocation_context(decoder)).plan.ratios.values()) == {0.6}


def test_a_mean_loss_beyond_the_range_of_float64_gives_a_finite_perplexity() -> None:
    context = allocation_context(tiny_llama(num_hidden_layers=1))
    runner = BlockRunner.capture(context.decoder, context.tokens, context.batch)
    criterion = OutputPerplexity(runner, Wanda(), context.tokens)
    assert criterion._summary(1.5) == math.exp(1.5)
    assert criterion._summary(1e4) == math.exp(700)


def test_alignment_skips_blocks_without_prunable_linears() -> None:
    decoder = DecoderModel(tiny_llama(num_hidden_layers=2).model, exclude=["0.*"])
    topup = NeuroAL(step="block", block_candidates=[0.1])
    (criterion,) = topup.allocate(allocation_context(decoder)).report["criterion_block"]
    assert 0 < criterion < 1
