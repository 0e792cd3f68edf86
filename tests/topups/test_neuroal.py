"""NeuroAL's schedules and search follow the paper beyond the golden cases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroal.errors import UserError
from neuroal.execution.costs import StageCosts
from neuroal.models.adapter import DecoderModel
from neuroal.pipeline import Recipe, allocate
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.sparsity.budget import Rules
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.neuroal import PAPER_LAMBDAS, NeuroAL, _row_ratios, block_ratios, row_plan
from neuroal.tracking import QuietProgress
from tests.small_models import allocation_context as context
from tests.small_models import check, random_tokens, tiny_llama


@given(st.integers(2, 40), st.floats(0.05, 0.95), st.floats(0, 0.25))
def test_block_sparsities_increase_linearly_around_the_target(
    blocks: int, s: float, lambda_: float
) -> None:
    ratios = block_ratios(blocks, s, lambda_, Rules.EXACT)
    assert math.isclose(sum(ratios) / blocks, s, abs_tol=1e-12)
    assert math.isclose(ratios[-1] - ratios[0], 2 * lambda_, abs_tol=1e-12)
    assert ratios == sorted(ratios)


def test_reference_clips_extreme_blocks() -> None:
    ratios = block_ratios(5, 0.85, 0.2, Rules.REFERENCE)
    assert ratios[-1] == 0.99
    assert block_ratios(5, 0.1, 0.2, Rules.REFERENCE)[0] == 0.01


def test_rows_with_larger_differences_are_denser() -> None:
    decoder = tiny_llama()
    differences = {lin.key: torch.linspace(0, 1, lin.cols) for lin in decoder}
    plan = row_plan(decoder, uniform_plan(decoder, 0.6), differences, 0.1, Rules.EXACT)
    q = plan.ratios["0.self_attn.q_proj"]
    assert isinstance(q, torch.Tensor)
    torch.testing.assert_close(q, torch.linspace(0.7, 0.5, 32, dtype=torch.float64))
    for fixed in ("0.mlp.down_proj", "3.self_attn.q_proj", "3.mlp.up_proj"):
        assert torch.equal(
            torch.as_tensor(plan.ratios[fixed]).unique(), torch.tensor([0.6], dtype=torch.float64)
        )


@pytest.mark.parametrize("rules", Rules)
def test_only_reference_rules_clip_the_ratios_of_rows(rules: Rules) -> None:
    ratios = torch.full((3,), 0.95, dtype=torch.float64)
    delta = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    highest = 0.99 if rules is Rules.REFERENCE else 1.05
    assert _row_ratios(ratios, delta, 0.1, rules).tolist() == pytest.approx([highest, 0.95, 0.85])


def test_the_float64_operations_on_rows_have_the_order_of_the_reference_code() -> None:
    """The last bits of another order may change the budgets of ``rules=reference``."""
    delta = torch.rand(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = (delta - delta.min()) / (delta.max() - delta.min()) * 0.08 * 2
    expected = 1 - (scaled - scaled.mean() + (1 - 0.7))
    ratios = torch.full((100,), 0.7, dtype=torch.float64)
    assert torch.equal(_row_ratios(ratios, delta, 0.08, Rules.REFERENCE), expected)


def test_the_candidates_are_those_of_the_paper() -> None:
    hundredths = [*range(1, 11), 12, 15, 20, 25]
    assert list(PAPER_LAMBDAS) == [number / 100 for number in hundredths]


@pytest.mark.parametrize(("search", "passes"), [("exact", 58.0), ("adaptive", 0.6 * 58)])
def test_a_candidate_takes_two_passes_and_fewer_in_an_adaptive_search(
    search: str, passes: float
) -> None:
    assert NeuroAL(search=search).search_passes(8) == pytest.approx(passes)


def test_the_row_step_alone_is_accepted_for_pruners_that_update_no_weights() -> None:
    check(NeuroAL(step="row"), Magnitude(), 0.7, Rules.EXACT)


def test_rows_whose_differences_sum_to_zero_keep_their_ratio_under_reference_rules() -> None:
    ratios, delta = torch.full((2,), 0.6, dtype=torch.float64), torch.tensor([-1.0, 1.0])
    assert torch.equal(_row_ratios(ratios, delta, 0.1, Rules.REFERENCE), ratios)
    assert not torch.equal(_row_ratios(ratios, delta, 0.1, Rules.EXACT), ratios)


def test_the_row_step_tries_zero_and_the_candidates_of_the_paper() -> None:
    topup = NeuroAL(step="row")
    report = topup.allocate(context(tiny_llama(num_hidden_layers=2))).report
    assert report["candidates_row"] == [0.0, *PAPER_LAMBDAS]


def test_grouped_query_attention_has_no_row_source() -> None:
    decoder = tiny_llama(num_key_value_heads=2)
    sources = {lin.name: decoder.row_source(lin) for lin in decoder.linears[0]}
    assert sources["self_attn.q_proj"] is sources["self_attn.v_proj"] is None
    assert sources["self_attn.o_proj"] == "mlp.gate_proj"


def test_rows_need_a_pruned_linear_before_their_consumer() -> None:
    dense = tiny_llama().model
    decoder = DecoderModel(dense, exclude=["self_attn.*"])
    assert decoder.row_source(decoder.linears[0][0]) == "mlp.down_proj"
    only_o = DecoderModel(dense, include=["self_attn.o_proj", "mlp.down_proj"])
    assert all(only_o.row_source(linear) is None for linear in only_o)


def test_the_search_leaves_the_model_dense_and_is_reproducible() -> None:
    decoder = tiny_llama()
    before = {key: value.clone() for key, value in decoder.model.state_dict().items()}
    first = NeuroAL(block_candidates=[0.05, 0.2], row_candidates=[0.0, 0.1]).allocate(
        context(decoder)
    )
    again = NeuroAL(block_candidates=[0.05, 0.2], row_candidates=[0.0, 0.1]).allocate(
        context(decoder)
    )
    assert first.report == again.report
    assert first.report["criterion_block"][0] > 0
    for key, value in decoder.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_best_candidate_wins() -> None:
    report = NeuroAL(step="block").allocate(context(tiny_llama())).report
    criteria = report["criterion_block"]
    assert len(criteria) == 14
    best = min(range(14), key=criteria.__getitem__)
    assert report["lambda_block"] == report["candidates_block"][best]


def test_the_last_candidate_is_omitted_from_eighty_percent_on() -> None:
    report = NeuroAL(step="block").allocate(context(tiny_llama(), sparsity=0.8)).report
    assert report["candidates_block"][-1] == 0.2


def test_the_criterion_is_finite_if_a_linear_loses_all_weights() -> None:
    decoder = tiny_llama()
    report = (
        NeuroAL(block_candidates=[0.5], row_candidates=[0.0])
        .allocate(context(decoder, Magnitude(), sparsity=0.9))
        .report
    )
    assert math.isfinite(report["criterion_block"][0])
    assert math.isfinite(report["criterion_row"][0])


UPDATING = [SparseGPT(), ALPS(stages=2, stage_steps=3, cg_steps=10)]
"""Pruners that update weights."""


@pytest.mark.parametrize("pruner", UPDATING, ids=lambda p: p.name)
def test_a_pruner_that_updates_weights_uses_only_the_block_step(pruner: Pruner) -> None:
    topup = NeuroAL(block_candidates=[0.1])
    assert not topup.allocate(context(tiny_llama(), pruner)).plan.per_row()
    assert topup.search_prunings(pruner) == 1
    with pytest.raises(UserError, match=r"topup\.step=row"):
        check(NeuroAL(step="row"), pruner, 0.7, Rules.EXACT)


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 1), (1e9, 0)])
def test_the_time_of_many_prunings_is_logged_before_the_search(
    seconds: float, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("neuroal.pipeline.NOTEWORTHY", seconds)
    settings = PruningSettings(UPDATING[1], 0.6)
    recipe = Recipe(settings, NeuroAL(block_candidates=[0.1, 0.2]))
    decoder = tiny_llama()
    with caplog.at_level("INFO", "neuroal"):
        costs = StageCosts(decoder.device)
        allocate(decoder, recipe, random_tokens(2, 24), costs, QuietProgress())
    logged = [message for message in caplog.messages if message.startswith("allocate: ")]
    assert len(logged) == lines
    for message in logged:
        assert message.startswith("allocate: prunes the model 2 times by pruner=alps, about 0 s")


@pytest.mark.parametrize("pruner", UPDATING, ids=lambda p: p.name)
def test_rows_with_updates_adds_the_row_step(pruner: Pruner) -> None:
    topup = NeuroAL(block_candidates=[0.1], row_candidates=[0.0, 0.1], rows_with_updates=True)
    assert topup.search_prunings(pruner) == 3
    allocation = topup.allocate(context(tiny_llama(), pruner))
    assert allocation.plan.per_row()
    assert len(allocation.report["criterion_row"]) == 2


@pytest.mark.parametrize("pruner", UPDATING, ids=lambda p: p.name)
def test_an_adaptive_search_chooses_among_complete_criteria(pruner: Pruner) -> None:
    decoder = tiny_llama(max_position_embeddings=512)
    tokens = random_tokens(2, 300)
    adaptive, exact = (
        NeuroAL(search=search).allocate(context(decoder, pruner, tokens=tokens)).report
        for search in ("adaptive", "exact")
    )
    complete = [value is not None for value in adaptive["criterion_block"]]
    assert any(complete)
    assert adaptive["lambda_block"] in adaptive["candidates_block"]
    for chosen, every in zip(adaptive["criterion_block"], exact["criterion_block"], strict=True):
        assert chosen is None or chosen == pytest.approx(every, rel=1e-3)


def test_the_row_step_names_the_function_that_declares_consumers() -> None:
    decoder = tiny_llama()
    decoder.model_type = "unknown"
    assert NeuroAL(step="block", block_candidates=[0.1]).allocate(context(decoder)).plan
    with pytest.raises(UserError, match="register_family"):
        NeuroAL(step="row").allocate(context(decoder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": "blocks"}, "must be one of"),
        ({"block_candidates": []}, "at least one"),
        ({"row_candidates": [0.1, 1.5]}, "1.5 is out of range"),
    ],
)
def test_errors_name_invalid_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NeuroAL(**settings)
