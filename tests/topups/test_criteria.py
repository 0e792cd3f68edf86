"""Criteria on the output equal what a plain forward pass of the pruned model gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.pruning import prune_model
from neuroal.topups.atp import ATP, progression, slopes
from neuroal.topups.criteria import make_criterion
from neuroal.topups.neuroal import NeuroAL, block_plan
from neuroal.tracking import QuietProgress
from tests.test_blocks import ARCHITECTURES, build
from tests.tiny import allocation_context, random_tokens, tiny_llama

TOKENS = random_tokens(5, 24)


@torch.no_grad()
def measured_plainly(name: str, subject: DecoderModel, pruner: Pruner, spread: float) -> float:
    """Prune a copy for good, run it as a whole and compare its logits."""
    context = allocation_context(subject, pruner, tokens=TOKENS, batch=2)
    dense: Tensor = subject.model(TOKENS).logits.double()
    pruned = DecoderModel(copy.deepcopy(subject.model))
    allotments = context.allot(block_plan(context, spread))
    prune_model(pruned, pruner, allotments, TOKENS, 2, QuietProgress())
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
def test_equals_pruning_and_running_the_whole_model(
    name: str, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.head.CHUNK", 7)
    subject = tiny_llama()
    context = allocation_context(subject, pruner, tokens=TOKENS, batch=2)
    runner = BlockRunner.capture(subject, TOKENS, 2)
    criterion = make_criterion(name, context, runner)
    for spread in (0.05, 0.2):
        found = criterion.measure(context.allot(block_plan(context, spread))).criterion
        assert found == pytest.approx(measured_plainly(name, subject, pruner, spread), rel=1e-4)


@pytest.mark.parametrize("model_type", ["opt", "phi", "gemma2", "bloom", "falcon", "qwen3"])
def test_the_head_is_the_models_own(model_type: str) -> None:
    subject = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    context = allocation_context(subject, Magnitude(), tokens=TOKENS, batch=2)
    criterion = make_criterion("perplexity", context, BlockRunner.capture(subject, TOKENS, 2))
    found = criterion.measure(context.allot(block_plan(context, 0.1))).criterion
    assert found == pytest.approx(
        measured_plainly("perplexity", subject, Magnitude(), 0.1), rel=1e-4
    )


@pytest.mark.parametrize("criterion", ["alignment", "output_kl", "perplexity"])
def test_neuroal_takes_the_best_by_the_criterion_it_was_told(criterion: str) -> None:
    subject = tiny_llama()
    before = [linear.module.weight.clone() for linear in subject]
    topup = NeuroAL(criterion=criterion, block_candidates=[0.02, 0.1, 0.2], row_candidates=[0, 0.1])
    report = topup.allocate(allocation_context(subject)).report
    for step in ("block", "row"):
        criteria = report[f"criterion_{step}"]
        best = min(range(len(criteria)), key=criteria.__getitem__)
        assert report[f"lambda_{step}"] == report[f"candidates_{step}"][best]
    for linear, weight in zip(subject, before, strict=True):
        assert torch.equal(linear.module.weight, weight)
    assert topup.allocate(allocation_context(subject)).report == report


def test_rows_alone_are_ordered_by_alignment_under_any_criterion() -> None:
    subject = tiny_llama()
    plans = [
        NeuroAL(step="row", criterion=criterion, row_candidates=[0.1])
        .allocate(allocation_context(subject))
        .plan.to_dict()
        for criterion in ("alignment", "output_kl")
    ]
    assert plans[0] == plans[1]


def test_sparsegpt_gets_rows_when_asked_to() -> None:
    context = allocation_context(tiny_llama(), SparseGPT())
    topup = NeuroAL(row_candidates=[0.1], block_candidates=[0.1], rows_with_updates=True)
    topup.check(SparseGPT(), 0.6, Rules.EXACT)
    assert topup.allocate(context).plan.per_row()
    with pytest.raises(UserError, match="rules=exact"):
        topup.check(SparseGPT(), 0.6, Rules.REFERENCE)


def test_a_criterion_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"did you mean 'output_kl'"):
        NeuroAL(criterion="output-kl")
    with pytest.raises(UserError, match=r"topup\.criterion=ppl"):
        ATP(criterion="ppl")


def test_atp_grows_by_a_fixed_step_and_stays_legal() -> None:
    assert slopes(32, 0.7, 0.002) == pytest.approx([0.002 * k for k in range(1, 10)])
    assert slopes(5, 0.5, 0.05) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
    assert slopes(1, 0.5, 0.002) == []
    context = allocation_context(tiny_llama(), sparsity=0.7)
    plan = progression(context, 0.1)
    ratios = [float(plan.ratios[f"{block}.mlp.up_proj"]) for block in range(4)]
    assert ratios == pytest.approx([0.55, 0.65, 0.75, 0.85])


def test_atp_takes_the_slope_of_lowest_perplexity() -> None:
    report = ATP(step=0.05).allocate(allocation_context(tiny_llama())).report
    assert len(report["candidates"]) == 5
    best = min(range(5), key=report["criteria"].__getitem__)
    assert report["beta"] == report["candidates"][best]


def test_atp_leaves_a_single_block_uniform() -> None:
    subject = tiny_llama(num_hidden_layers=1)
    assert set(ATP().allocate(allocation_context(subject)).plan.ratios.values()) == {0.6}
