"""N:M patterns hold in every group of every row, and their total is as close as possible."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.kernels.selection import Groups, lowest_per_row
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.prune_model import prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.patterns import Pattern, nearest_patterns
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

PATTERNS = st.integers(2, 9).flatmap(
    lambda of: st.builds(Pattern, st.integers(1, of - 1), st.just(of))
)


def assert_holds(mask: Tensor, pattern: Pattern) -> None:
    whole = mask.shape[1] - mask.shape[1] % pattern.of
    remaining = (~mask[:, :whole]).view(len(mask), -1, pattern.of).sum(2)
    assert bool((remaining == pattern.keep).all())
    assert bool(((~mask[:, whole:]).sum(1) <= pattern.keep).all())
    assert bool(((~mask).sum(1) == pattern.remaining(mask.shape[1])).all())


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
def test_patterns_of_equal_blocks_are_as_close_to_the_total_as_possible(
    densities: list[float], of: int, share: float
) -> None:
    keys = [str(index) for index in range(len(densities))]
    shapes = dict.fromkeys(keys, (3, 16))
    units = {key: index for index, key in enumerate(keys)}
    target = round(sum(densities) / len(densities) * 48 * len(keys))
    patterns = nearest_patterns(dict(zip(keys, densities, strict=True)), shapes, units, of, target)
    step = 48 // of
    total = sum(step * pattern.keep for pattern in patterns.values())
    least = sum(max(1, int(density * of)) for density in densities) * step
    assert abs(total - target) <= step / 2 or total == least
    for key, density in zip(keys, densities, strict=True):
        assert 1 <= patterns[key].keep <= of
        assert abs(patterns[key].keep - density * of) <= 1


def test_a_uniform_plan_at_the_patterns_sparsity_gets_that_pattern() -> None:
    decoder = tiny_llama()
    for keep, of in ((2, 4), (4, 8), (3, 8), (1, 2)):
        budgets = linear_budgets(uniform_plan(decoder, 1 - keep / of), decoder, Rules.EXACT, of)
        assert {budget.pattern for budget in budgets.values()} == {Pattern(keep, of)}


def test_every_block_gets_its_own_pattern_near_its_ratio() -> None:
    decoder = tiny_llama()
    ratios = [0.3, 0.5, 0.6, 0.8]
    plan = SparsityPlan({lin.key: ratios[lin.block] for lin in decoder}, 0.55)
    budgets = linear_budgets(plan, decoder, Rules.EXACT, 8)
    patterns = [budgets[f"{block}.mlp.up_proj"].pattern for block in range(4)]
    keeps = [pattern.keep for pattern in patterns if pattern]
    assert keeps == [6, 4, 3, 1]  # the ratios correspond to 5.6, 4, 3.2 and 1.6
    zeros = sum(int(budget.counts.sum()) for budget in budgets.values())
    block = decoder.numel // 4
    assert abs(zeros - 0.55 * decoder.numel) <= block / 8 / 2


@pytest.mark.parametrize("of", [2, 4, 8, 16, 20])
def test_the_lowest_of_a_group_are_those_of_a_sort(of: int) -> None:
    scores = torch.randn(50, 3 * of, generator=torch.Generator().manual_seed(of))
    scores[::2] = scores[::2].mul(2).round()  # ties
    scores[1, ::3], scores[3, ::4] = 0.0, -0.0
    for keep in (1, of // 2, of - 1):
        groups = scores.reshape(-1, of)
        expected = lowest_per_row(groups, torch.full((len(groups),), of - keep))
        assert torch.equal(Pattern(keep, of).lowest(scores), expected.view_as(scores))


def test_ratios_per_row_cannot_be_combined_with_a_pattern() -> None:
    decoder = tiny_llama()
    ratios = {lin.key: torch.full((lin.rows,), 0.5) for lin in decoder}
    with pytest.raises(UserError, match="one N for a whole linear"):
        linear_budgets(SparsityPlan(ratios, 0.5), decoder, Rules.EXACT, 4)


@pytest.mark.parametrize(
    "pruner", [Magnitude(), Wanda(), Multiflow(), SparseGPT(block_size=20), ALPS()]
)
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (5, 8), (3, 7)])
def test_every_pruner_satisfies_the_pattern(pruner: Pruner, keep: int, of: int) -> None:
    decoder = tiny_llama()
    before = {linear.key: linear.weight.detach().clone() for linear in decoder}
    budgets = linear_budgets(uniform_plan(decoder, 1 - keep / of), decoder, Rules.EXACT, of)
    masks = _prune(decoder, pruner, budgets)
    for linear in decoder:
        mask, weight = masks[linear.key], linear.weight.detach()
        assert_holds(mask, Pattern(keep, of))
        assert not bool(weight[mask].any())
        if not pruner.updates_weights:
            assert torch.equal(weight[~mask], before[linear.key][~mask])


def _prune(
    decoder: DecoderModel, pruner: Pruner, budgets: dict[str, LinearBudget]
) -> dict[str, Tensor]:
    tokens = random_tokens(4, 24)
    return dict(
        prune_model(
            decoder,
            pruner,
            budgets,
            tokens,
            AdaptiveBatch("prune", 4, divides=True),
            QuietProgress(),
        )
    )


@settings(max_examples=10)
@given(st.integers(1, 3))
def test_sparsegpt_scores_a_group_by_its_updated_weights(keep: int) -> None:
    generator = torch.Generator().manual_seed(keep)
    x = torch.randn(64, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    weight = torch.randn(6, 12, generator=generator)
    pruner, pattern = SparseGPT(), Pattern(keep, 4)
    statistics = InputStatistics(x.square().sum(0)[None], gram=x.T @ x)
    counts = torch.full((6,), 12 - pattern.remaining(12))
    pruned = pruner.prune(weight, statistics, LinearBudget(counts, 0.5, Rules.EXACT, pattern))
    factor, _ = pruner.inverse_factor(InputStatistics(x.square().sum(0)[None], gram=x.T @ x))
    expected = weight.clone()
    for column in range(12):
        if column % 4 == 0:
            group = slice(column, column + 4)
            saliency = expected[:, group] ** 2 / factor.diagonal()[group] ** 2
            gone = torch.zeros(6, 4, dtype=torch.bool)
            gone.scatter_(1, saliency.argsort(dim=1)[:, : 4 - keep], True)
        remaining = expected[:, column].masked_fill(gone[:, column % 4], 0)
        error = (expected[:, column] - remaining) / factor[column, column]
        expected[:, column:] -= error[:, None] * factor[column, column:]
        expected[:, column] = remaining
    torch.testing.assert_close(pruned.weight, expected, rtol=1e-4, atol=1e-5)


def keeps(
    densities: list[float], remaining: int, rows: list[int] | None = None, of: int = 4
) -> list[int]:
    """Return N of each of several blocks with one linear of `of` columns."""
    names = [str(number) for number in range(len(densities))]
    shapes = {
        name: (count, of) for name, count in zip(names, rows or [1] * len(names), strict=True)
    }
    units = {name: number for number, name in enumerate(names)}
    ratios = dict(zip(names, densities, strict=True))
    patterns = nearest_patterns(ratios, shapes, units, of, remaining)
    return [patterns[name].keep for name in names]


def test_blocks_that_lose_most_by_rounding_down_are_raised_until_the_total_is_met() -> None:
    densities = [0.3, 0.7, 0.6]  # 1.2, 2.8 and 2.4 of 4
    assert keeps(densities, remaining=5) == [1, 2, 2]
    assert keeps(densities, remaining=6) == [1, 3, 2]
    assert keeps(densities, remaining=7) == [1, 3, 3]
    assert keeps(densities, remaining=8) == [2, 3, 3]


def test_a_block_is_not_raised_if_the_total_does_not_come_closer() -> None:
    assert keeps([0.375, 0.375], remaining=5, rows=[2, 2]) == [1, 1]  # 4 or 6 are equally close
    assert keeps([0.375, 0.375], remaining=6, rows=[2, 2]) == [2, 1]  # the first on ties
    assert keeps([0.7, 0.6], remaining=23, rows=[10, 1]) == [2, 3]  # the first would add 10


def test_a_block_keeps_at_least_one_and_at_most_all_weights_of_a_group() -> None:
    assert keeps([0.1, 1.0], remaining=5) == [1, 4]
    assert keeps([0.1, 1.0], remaining=9) == [2, 4]


def test_linears_of_one_block_with_different_densities_have_patterns_of_their_own() -> None:
    densities = {"a": 0.25, "b": 0.75, "c": 0.25}
    patterns = nearest_patterns(
        densities, dict.fromkeys("abc", (1, 4)), dict.fromkeys("abc", 0), 4, 5
    )
    assert {key: pattern.keep for key, pattern in patterns.items()} == {"a": 1, "b": 3, "c": 1}


@pytest.mark.parametrize(
    ("keep", "of", "cols", "remaining"),
    [(2, 4, 5, 3), (2, 4, 7, 4), (1, 4, 5, 1), (1, 4, 6, 2), (3, 8, 12, 5), (3, 8, 10, 4)],
)
def test_a_last_group_keeps_its_share_and_halves_are_rounded_up(
    keep: int, of: int, cols: int, remaining: int
) -> None:
    assert Pattern(keep, of).remaining(cols) == remaining


def test_only_the_last_of_the_groups_has_fewer_columns() -> None:
    assert Pattern(2, 4).groups(6) == Groups(of=4, zeros=2, zeros_of_last=1)
    assert Pattern(2, 4).groups(8) == Groups(of=4, zeros=2, zeros_of_last=0)
