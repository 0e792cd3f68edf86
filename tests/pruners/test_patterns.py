"""N:M patterns hold in every group of every row, and their total is the nearest they can reach."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Allotment, Rules, allot
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.patterns import Pattern, nearest_patterns
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.pruning import prune_model
from neuroal.statistics import InputStatistics
from neuroal.topups.uniform import uniform_plan
from neuroal.tracking import QuietProgress
from tests.tiny import random_tokens, tiny_llama

PATTERNS = st.integers(2, 9).flatmap(
    lambda of: st.builds(Pattern, st.integers(1, of - 1), st.just(of))
)


def assert_holds(mask: Tensor, pattern: Pattern) -> None:
    whole = mask.shape[1] - mask.shape[1] % pattern.of
    kept = (~mask[:, :whole]).view(len(mask), -1, pattern.of).sum(2)
    assert bool((kept == pattern.keep).all())
    assert bool(((~mask[:, whole:]).sum(1) <= pattern.keep).all())
    assert bool(((~mask).sum(1) == pattern.kept(mask.shape[1])).all())


@given(PATTERNS, st.integers(1, 5), st.integers(1, 40), st.integers(0, 3))
def test_every_group_keeps_its_highest_scores(
    pattern: Pattern, rows: int, cols: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (rows, cols), generator=generator).float()  # many ties
    mask = pattern.lowest(scores)
    assert_holds(mask, pattern)
    for begin in range(0, cols, pattern.of):
        group, gone = scores[:, begin : begin + pattern.of], mask[:, begin : begin + pattern.of]
        order = group.sort(dim=1, stable=True).indices
        expected = torch.zeros_like(gone)
        for row, columns in enumerate(order):
            expected[row, columns[: int(gone[row].sum())]] = True
        assert torch.equal(gone, expected)


@given(
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8),
    st.sampled_from([2, 4, 8]),
    st.floats(0.0, 1.0),
)
def test_blocks_of_one_size_come_as_near_as_they_can(
    densities: list[float], of: int, share: float
) -> None:
    keys = [str(index) for index in range(len(densities))]
    shapes = dict.fromkeys(keys, (3, 16))
    units = {key: index for index, key in enumerate(keys)}
    wanted = sum(densities) / len(densities) * 48 * len(keys)
    found = nearest_patterns(
        dict(zip(keys, densities, strict=True)), shapes, units, of, round(wanted)
    )
    step = 48 // of
    total = sum(step * pattern.keep for pattern in found.values())
    least = sum(max(1, int(density * of)) for density in densities) * step
    assert abs(total - round(wanted)) <= step / 2 or total == least
    for key, density in zip(keys, densities, strict=True):
        assert 1 <= found[key].keep <= of
        assert abs(found[key].keep - density * of) <= 1


def test_a_plan_that_fits_the_pattern_is_left_alone() -> None:
    subject = tiny_llama()
    for keep, of in ((2, 4), (4, 8), (3, 8), (1, 2)):
        allotments = allot(uniform_plan(subject, 1 - keep / of), subject, Rules.EXACT, of)
        assert {found.pattern for found in allotments.values()} == {Pattern(keep, of)}


def test_blocks_get_patterns_of_their_own_about_the_target() -> None:
    subject = tiny_llama()
    ratios = [0.3, 0.5, 0.6, 0.8]
    plan = SparsityPlan({lin.key: ratios[lin.block] for lin in subject}, 0.55)
    allotments = allot(plan, subject, Rules.EXACT, 8)
    keeps = [allotments[f"{block}.mlp.up_proj"].pattern for block in range(4)]
    assert [found.keep for found in keeps if found] == [6, 4, 3, 1]  # of 5.6, 4, 3.2, 1.6
    zeros = sum(int(found.counts.sum()) for found in allotments.values())
    block = subject.numel // 4
    assert abs(zeros - 0.55 * subject.numel) <= block / 8 / 2


def test_rows_have_no_pattern_of_their_own() -> None:
    subject = tiny_llama()
    ratios = {lin.key: torch.full((lin.rows,), 0.5) for lin in subject}
    with pytest.raises(UserError, match="one N a block"):
        allot(SparsityPlan(ratios, 0.5), subject, Rules.EXACT, 4)


@pytest.mark.parametrize("pruner", [Magnitude(), Wanda(), Multiflow(), SparseGPT(block_size=20)])
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (5, 8), (3, 7)])
def test_every_pruner_keeps_the_pattern(pruner: Pruner, keep: int, of: int) -> None:
    subject = tiny_llama()
    before = {linear.key: linear.module.weight.detach().clone() for linear in subject}
    allotments = allot(uniform_plan(subject, 1 - keep / of), subject, Rules.EXACT, of)
    masks = _prune(subject, pruner, allotments)
    for linear in subject:
        mask, weight = masks[linear.key], linear.module.weight.detach()
        assert_holds(mask, Pattern(keep, of))
        assert not bool(weight[mask].any())
        if not pruner.updates_weights:
            assert torch.equal(weight[~mask], before[linear.key][~mask])


def _prune(
    subject: DecoderModel, pruner: Pruner, allotments: dict[str, Allotment]
) -> dict[str, Tensor]:
    tokens = random_tokens(4, 24)
    return dict(prune_model(subject, pruner, allotments, tokens, 4, QuietProgress()).masks)


@settings(max_examples=10)
@given(st.integers(1, 3))
def test_sparsegpt_chooses_a_group_on_updated_weights(keep: int) -> None:
    generator = torch.Generator().manual_seed(keep)
    x = torch.randn(64, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    weight = torch.randn(6, 12, generator=generator)
    pruner, pattern = SparseGPT(), Pattern(keep, 4)
    statistics = InputStatistics(x.square().sum(0)[None], gram=x.T @ x)
    counts = torch.full((6,), 12 - pattern.kept(12))
    pruned = pruner.prune(weight, statistics, Allotment(counts, 0.5, Rules.EXACT, pattern))
    factor, _ = pruner.inverse_factor(InputStatistics(x.square().sum(0)[None], gram=x.T @ x))
    expected = weight.clone()
    for column in range(12):
        if column % 4 == 0:
            group = slice(column, column + 4)
            saliency = expected[:, group] ** 2 / factor.diagonal()[group] ** 2
            gone = torch.zeros(6, 4, dtype=torch.bool)
            gone.scatter_(1, saliency.argsort(dim=1)[:, : 4 - keep], True)
        kept = expected[:, column].masked_fill(gone[:, column % 4], 0)
        error = (expected[:, column] - kept) / factor[column, column]
        expected[:, column:] -= error[:, None] * factor[column, column:]
        expected[:, column] = kept
    torch.testing.assert_close(pruned.weight, expected, rtol=1e-4, atol=1e-5)
