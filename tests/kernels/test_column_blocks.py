"""One column block of SparseGPT, and its Triton kernels in Triton's interpreter, if installed."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroal.kernels.column_blocks import eliminate, eliminate_groups, lowest_overall
from neuroal.sparsity.patterns import Pattern
from tests.kernels.interpreter import needs_triton, run_in_interpreter

KERNELS = """
from tests.kernels.test_column_blocks import check_elimination, check_groups, check_selection
from neuroal.kernels import column_blocks_triton as kernels

kernels.ENTRIES = 512
for seed in range(6):
    check_selection(seed, "cpu", kernels.lowest_overall)
for seed in range(4):
    check_elimination(seed, "cpu", kernels.eliminate)
    check_groups(seed, "cpu", kernels.eliminate_groups)
"""


def block_of(seed: int, device: str) -> tuple[Tensor, Tensor, torch.Generator]:
    """Return a block of a wider weight, a triangle of a larger factor, and a generator."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = int(torch.randint(1, 60, (1,), generator=generator)), (128, 47, 16, 96)[seed % 4]
    weight = torch.randn(rows, width + 9, generator=generator).to(device)
    x = torch.randn(4 * width, width + 5, generator=generator)
    factor = torch.linalg.cholesky(torch.linalg.inv(x.T @ x / len(x)), upper=True).to(device)
    return weight[:, 3 : 3 + width], factor.contiguous()[:width, :width], generator


def check_selection(seed: int, device: str, function: object = lowest_overall) -> None:
    """Compare the lowest entries of matrices, some with many ties, with those of sorting."""
    generator = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(1, 40, (1,), generator=generator))
    scores = torch.randn(rows, 128, generator=generator).square()
    if seed % 3 == 1:
        scores = scores.mul(2).round()
    if seed % 3 == 2:
        scores[:, ::3] = 0
        scores[:, 1::3] = float("inf")
    some = int(torch.randint(1, scores.numel(), (1,), generator=generator))
    for count in (0, 1, some, scores.numel()):
        for all_ties in (False, True):
            expected = lowest_overall(scores, count, all_ties=all_ties)
            mask = function(scores.to(device), count, all_ties=all_ties)  # type: ignore[operator]
            assert mask.dtype == torch.bool
            assert torch.equal(mask.cpu(), expected), (count, all_ties)


def check_elimination(seed: int, device: str, function: object = eliminate) -> None:
    """Compare the elimination of a random mask with that on the CPU."""
    block, triangle, generator = block_of(seed, device)
    mask = (torch.rand(block.shape, generator=generator) < 0.6).to(device)
    expected = block.cpu().clone()
    errors = eliminate(expected, triangle.cpu(), mask.cpu())
    result = function(block, triangle, mask)  # type: ignore[operator]
    torch.testing.assert_close(result.cpu(), errors, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(block.cpu(), expected, rtol=1e-3, atol=1e-4)
    assert not block[mask].any()


def check_groups(seed: int, device: str, function: object = eliminate_groups) -> None:
    """Compare the elimination by groups, with and without a target, with that on the CPU."""
    for targeted in (False, True):
        block, triangle, generator = block_of(seed, device)
        pattern = (Pattern(2, 4), Pattern(1, 4), Pattern(3, 8), Pattern(5, 16))[seed % 4]
        groups = pattern.groups(block.shape[1])
        target = torch.rand(block.shape, generator=generator) < 0.5 if targeted else None
        expected = block.cpu().clone()
        errors, lowest = eliminate_groups(expected, triangle.cpu(), groups, target)
        moved = None if target is None else target.to(device)
        result, chosen = function(block, triangle, groups, moved)  # type: ignore[operator]
        assert bool(pattern.holds(chosen))
        assert (chosen.cpu() == lowest).float().mean() >= 0.9999
        torch.testing.assert_close(result.cpu(), errors, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(block.cpu(), expected, rtol=1e-3, atol=1e-4)


def test_the_elimination_minimises_the_error_of_the_output() -> None:
    """After a row's pruned weights, the last remaining one has its least-squares value."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    hessian = x.T @ x
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    weight = torch.randn(1, 8, generator=generator, dtype=torch.float64)
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[0, :5] = True
    block = weight.clone()
    eliminate(block, factor, mask)
    # With all pruned columns first, the others solve the normal equations.
    remaining = slice(5, None)
    expected = torch.linalg.solve(hessian[remaining, remaining], (hessian @ weight[0])[remaining])
    torch.testing.assert_close(block[0, remaining], expected)


@needs_triton
def test_kernels_equal_the_reference_in_the_interpreter() -> None:
    run_in_interpreter(KERNELS)
