"""The kernels of SparseGPT's column blocks compute the same as PyTorch, and whole linears too."""

from __future__ import annotations

import pytest
import torch

from neuroal.kernels import column_blocks
from neuroal.kernels.column_blocks import has_kernel
from neuroal.kernels.input_statistics import InputStatistics, Need, StatisticsCollector
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.sparsity.patterns import Pattern
from tests.kernels.test_column_blocks import check_elimination, check_groups, check_selection


@pytest.mark.parametrize("seed", range(40))
def test_random_blocks_equal_the_reference(seed: int) -> None:
    check_selection(seed, "cuda")
    check_elimination(seed, "cuda")
    check_groups(seed, "cuda")
    assert has_kernel(torch.ones(2, 16, device="cuda"))


@pytest.mark.parametrize("form", ["one ratio", "rows", "reference", "2:4", "given mask"])
@pytest.mark.parametrize("seed", range(4))
def test_a_whole_linear_equals_that_without_kernels(
    form: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, cols = 200 + seed, 1000 + 8 * seed
    weight = torch.randn(rows, cols, generator=generator).cuda()
    mixing = torch.randn(cols, cols, generator=generator) / cols**0.5 + torch.eye(cols)
    x = (torch.randn(1, 4 * cols, cols, generator=generator) @ mixing).cuda()
    budget, mask = budget_of(form, rows, cols, generator), torch.rand(rows, cols) < 0.6
    pruner, statistics, results = SparseGPT(), statistics_of(x), []
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setattr(column_blocks, "has_kernel", lambda _values: False)
        if form == "given mask":
            pruned = pruner.prune_to(weight, statistics, budget, mask.cuda())
            assert torch.equal(pruned.mask.cpu(), mask)
            assert pruned.differing is not None
        else:
            pruned = pruner.prune(weight, statistics, budget)
            assert bool(pruner.meets(pruned.mask, budget))
        results.append((pruned.weight, pruned.mask))
    (first, chosen), (second, expected) = results
    assert float((chosen == expected).double().mean()) >= 0.9999
    losses = [float((x[0] @ (part - weight).T).square().mean()) for part in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def budget_of(form: str, rows: int, cols: int, generator: torch.Generator) -> LinearBudget:
    counts = torch.full((rows,), int(0.6 * cols))
    if form == "rows":
        ratios = 0.2 + 0.7 * torch.rand(rows, generator=generator, dtype=torch.float64)
        return LinearBudget((ratios * cols).long(), ratios, Rules.EXACT)
    if form == "2:4":
        pattern = Pattern(2, 4)
        return LinearBudget(torch.full((rows,), cols // 2), 0.5, Rules.EXACT, pattern)
    rules = Rules.REFERENCE if form == "reference" else Rules.EXACT
    return LinearBudget(counts, 0.6, rules)


def statistics_of(x: torch.Tensor) -> InputStatistics:
    collector = StatisticsCollector(frozenset({Need.NORM, Need.GRAM}))
    collector.start_batch(1, x.shape[-2])
    collector.see("linear", x)
    return collector.finish()["linear"]
