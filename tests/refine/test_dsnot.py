"""DSnoT reduces the error of every row by swaps at equal counts, and stops without candidates."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.sparsity.budget import Rules
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress
from tests.architectures import build
from tests.small_models import allocation_context, random_tokens, tiny_llama


def linear_inputs(seed: int, rows: int, cols: int) -> tuple[Tensor, Tensor, InputStatistics]:
    """Return a weight, a mask with different counts per row, and statistics of biased inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=generator)
    x = torch.randn(3, 10, cols, generator=generator) + torch.randn(cols, generator=generator)
    mask = torch.rand(rows, cols, generator=generator) < torch.rand(rows, 1, generator=generator)
    statistics = InputStatistics(x.square().sum(1), x.sum(1), x.var(1, correction=0))
    return weight, mask, statistics


def swap_one_by_one(
    weight: Tensor, mask: Tensor, statistics: InputStatistics, cycles: int, any_sign: bool
) -> Tensor:
    """Apply the rule of the authors' code one row and one swap at a time."""
    assert statistics.sums is not None
    assert statistics.variances is not None
    mean, variance = statistics.sums.mean(0), statistics.variances.mean(0)
    result = mask.clone()
    for row, gone in enumerate(mask):
        c, wanda = weight[row] * mean, weight[row].abs() * statistics.norm
        regrow = sorted(range(len(c)), key=lambda j: float(c[j] / variance[j]) if gone[j] else 0.0)
        remaining = [j for j in range(len(c)) if not gone[j]]
        by_score = sorted(remaining, key=lambda j: float(wanda[j]))
        prune = [j for j in by_score if c[j] < 0] + [j for j in reversed(by_score) if c[j] > 0]
        error = float(c[gone].sum())
        taken = {"regrow": [0, 0], "prune": [0, 0]}
        for _ in range(cycles):
            if abs(error) <= 0.1:
                break
            up = error > 0
            first, second = taken["regrow"][up], taken["prune"][up]
            if first >= len(regrow) or second >= len(prune):
                break
            back = regrow[-1 - first] if up else regrow[first]
            out = prune[second] if up else prune[-1 - second]
            sign = 1 if up else -1
            reduces = gone[back] and sign * c[back] > 0 and sign * c[out] < 0
            if not any_sign and not reduces:
                break
            taken["regrow"][up] += 1
            taken["prune"][up] += 1
            result[row, out] = True
            result[row, back] = False
            error += float(c[out]) - float(c[back])
    return result


@given(
    st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 30), st.sampled_from([1, 3, 8, 50])
)
def test_refinement_equals_the_rule_applied_row_by_row(
    seed: int, rows: int, cols: int, cycles: int
) -> None:
    weight, mask, statistics = linear_inputs(seed, rows, cols)
    for rules in Rules:
        expected = swap_one_by_one(weight, mask, statistics, cycles, rules is Rules.REFERENCE)
        refined = DSnoT(max_cycle_time=cycles).refine(weight, mask, statistics, rules)
        assert torch.equal(refined, expected), rules


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_every_swap_preserves_counts_and_reduces_the_error(seed: int, cols: int) -> None:
    weight, mask, statistics = linear_inputs(seed, 4, cols)
    assert statistics.sums is not None
    contribution = weight * statistics.sums.mean(0)
    before, cycles = mask, 0
    while cycles < 50:
        cycles += 1
        after = DSnoT(max_cycle_time=cycles).refine(weight, mask, statistics, Rules.EXACT)
        assert torch.equal(after.sum(1), mask.sum(1))
        errors = [contribution.masked_fill(~m, 0).sum(1) for m in (before, after)]
        change, moved = errors[1] - errors[0], (before != after).any(1)
        assert bool((change[moved] * errors[0][moved] < 0).all())
        if torch.equal(before, after):
            break
        before = after


@pytest.mark.parametrize("pruned", [False, True])
def test_always_zero_inputs_do_not_change_and_do_not_stop_a_row(pruned: bool) -> None:
    weight, mask, statistics = linear_inputs(3, 20, 12)
    mask[:, 5] = pruned
    assert statistics.sums is not None
    assert statistics.variances is not None
    for values in (statistics.sums, statistics.variances, statistics.square_sums):
        values[:, 5] = 0
    refined = DSnoT().refine(weight, mask, statistics, Rules.EXACT)
    assert torch.equal(refined[:, 5], mask[:, 5])
    assert not torch.equal(refined, mask)
    others = torch.arange(12) != 5
    narrow = InputStatistics(
        *(v[:, others] for v in (statistics.square_sums, statistics.sums, statistics.variances))
    )
    expected = DSnoT().refine(weight[:, others], mask[:, others], narrow, Rules.EXACT)
    assert torch.equal(refined[:, others], expected)


def test_inputs_of_one_sign_do_not_prune_the_largest_weights() -> None:
    weight = torch.tensor([[0.1, 0.2, 0.3, 4.0, 5.0, 6.0]])
    mask = torch.tensor([[True, True, True, False, False, False]])
    ones = torch.ones(2, 6)
    statistics = InputStatistics(ones * 10, ones * 10, ones)
    assert torch.equal(DSnoT().refine(weight, mask, statistics, Rules.EXACT), mask)
    reference = DSnoT(max_cycle_time=2).refine(weight, mask, statistics, Rules.REFERENCE)
    assert bool(reference[0, 5])


def prune(decoder: DecoderModel, pruner: Any, refiner: DSnoT | None) -> dict[str, Tensor]:
    budgets = allocation_context(decoder).budgets(uniform_plan(decoder, 0.6))
    tokens = random_tokens(4, 24)
    return dict(
        prune_model(
            decoder,
            RefinedPruner(pruner, refiner),
            budgets,
            tokens,
            AdaptiveBatch("prune", 4, divides=True),
            QuietProgress(),
        )
    )


@pytest.mark.parametrize(
    ("model_type", "changes", "refined"),
    [
        ("llama", {}, "self_attn."),
        ("mistral", {"num_key_value_heads": 2}, "self_attn."),
        ("phi", {}, "self_attn."),
        ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, "self_attn."),
        ("gpt_neox", {}, ""),
    ],
)
def test_the_family_declares_which_linears_are_refined(
    model_type: str, changes: dict[str, Any], refined: str
) -> None:
    plain = prune(DecoderModel(build(model_type, **changes)), Wanda(), None)
    swapped = prune(DecoderModel(build(model_type, **changes)), Wanda(), DSnoT(threshold=0.0))
    first = {key for key in plain if key.startswith("0.")}  # inputs of later blocks differ
    changed = {key for key in first if not torch.equal(plain[key], swapped[key])}
    assert changed
    assert all(key.startswith(f"0.{refined}") for key in changed)


def test_sparsegpt_starts_from_its_own_scores_of_unchanged_weights() -> None:
    decoder = tiny_llama()
    before = {linear.key: linear.weight.clone() for linear in decoder}
    masks = prune(decoder, SparseGPT(), DSnoT())
    for linear in decoder:
        weight, mask = linear.weight, masks[linear.key]
        assert torch.equal(weight, before[linear.key].masked_fill(mask, 0))
    wanda = prune(tiny_llama(), Wanda(), DSnoT())
    assert not torch.equal(masks["0.mlp.up_proj"], wanda["0.mlp.up_proj"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_cycle_time": 0}, r"refine\.max_cycle_time=0"),
        ({"threshold": -1.0}, r"refine\.threshold=-1\.0"),
        ({"variance_power": -0.5}, r"refine\.variance_power=-0\.5"),
    ],
)
def test_errors_name_invalid_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DSnoT(**settings)


def refined_row(
    contribution: list[float], pruned: int | list[bool], threshold: float
) -> list[bool]:
    """Return the refined mask of one row whose first `pruned` columns, or these, are pruned."""
    weight, ones = torch.tensor([contribution]), torch.ones(1, len(contribution))
    if isinstance(pruned, int):
        pruned = [column < pruned for column in range(len(contribution))]
    mask = torch.tensor([pruned])
    refiner = DSnoT(threshold=threshold)
    return refiner.refine(weight, mask, InputStatistics(ones, ones, ones), Rules.EXACT)[0].tolist()


def test_a_row_swaps_only_while_its_error_exceeds_the_threshold() -> None:
    row = [0.5, -0.25, 2.0]  # the error is 0.5, with the first column pruned
    assert refined_row(row, 1, threshold=0.5) == [True, False, False]
    assert refined_row(row, 1, threshold=0.25) == [False, True, False]


def test_columns_without_contribution_are_not_swapped() -> None:
    assert refined_row([0.5, 0.0], 1, threshold=0.0) == [True, False]
    assert refined_row([-0.5, 0.0], 1, threshold=0.0) == [True, False]


def test_a_pruned_column_without_contribution_is_not_regrown() -> None:
    """After the first swap, the error is 2 and only the last column could be regrown."""
    row, pruned = [-0.5, 2.0, -1.0, 0.0], [True, False, False, True]
    assert refined_row(row, pruned, threshold=0.1) == [False, True, False, True]


@pytest.mark.parametrize("missing", ["sums", "variances"])
def test_statistics_without_sums_or_variances_are_refused(missing: str) -> None:
    weight, mask, statistics = linear_inputs(0, 2, 5)
    incomplete = dataclasses.replace(statistics, **{missing: None})
    with pytest.raises(ValueError, match="sums and variances"):
        DSnoT().refine(weight, mask, incomplete, Rules.EXACT)
