"""The selection kernels compute the same masks as the PyTorch reference."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroal.kernels import selection
from neuroal.kernels.selection import prune_rows, scores_of, sorted_lowest_per_row, zeroed

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COLUMNS = (1, 2, 31, 33, 100, 257)


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton; its interpreter needs no GPU)")
    from neuroal.kernels import selection_triton

    return selection_triton


def scores_of_all_kinds(cols: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return rows with ties, zeros of both signs, infinities, and a constant row."""
    scores = torch.randn(6, cols, generator=torch.Generator().manual_seed(seed))
    scores[1].round_()
    scores[2, ::2], scores[2, 1::2] = 0.0, -0.0
    scores[3, ::2], scores[3, 1::3] = float("inf"), float("-inf")
    scores[4] = 0.25
    scores[5].abs_()
    return scores.to(DEVICE, dtype)


def counts_of_all_kinds(cols: int, seed: int) -> list[Tensor]:
    """Return random counts, all zeros, and all `cols`, for six rows."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randint(0, cols + 1, (6,), generator=generator)
    return [mixed, torch.zeros(6, dtype=torch.long), torch.full((6,), cols)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", COLUMNS)
@pytest.mark.parametrize("ties_to_higher", [False, True])
def test_lowest_per_row_equals_the_reference(
    kernels: ModuleType, cols: int, dtype: torch.dtype, ties_to_higher: bool
) -> None:
    scores = scores_of_all_kinds(cols, dtype, seed=cols)
    for counts in counts_of_all_kinds(cols, seed=cols):
        mask = kernels.lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)
        expected = sorted_lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)
        assert torch.equal(mask, expected)
        assert torch.equal(mask.sum(1).cpu(), counts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("by_col", [False, True])
def test_prune_rows_equals_the_reference(
    kernels: ModuleType, dtype: torch.dtype, by_row: bool, by_col: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 70, generator=generator).to(DEVICE, dtype)
    weight[0] = 0
    rows = torch.rand(6, generator=generator).to(DEVICE) if by_row else None
    cols = torch.rand(70, generator=generator).to(DEVICE) if by_col else None
    if cols is not None:
        cols[::9] = 0  # inputs that are always zero
    for counts in counts_of_all_kinds(70, seed=1):
        pruned, mask = kernels.prune_rows(weight, rows, cols, counts)
        expected = sorted_lowest_per_row(scores_of(weight, rows, cols), counts)
        assert torch.equal(mask, expected)
        assert torch.equal(pruned, weight.masked_fill(expected, 0))
        without_mask, none = kernels.prune_rows(weight, rows, cols, counts, with_mask=False)
        assert none is None
        assert torch.equal(without_mask, pruned)


@pytest.mark.parametrize("by_row", [False, True])
def test_groups_of_rows_have_column_factors_of_their_own(by_row: bool) -> None:
    check_groups(prune_rows, by_row)


@pytest.mark.parametrize("by_row", [False, True])
def test_the_kernel_reads_the_column_factors_of_a_group(kernels: ModuleType, by_row: bool) -> None:
    check_groups(kernels.prune_rows, by_row)


def check_groups(function: Callable[..., tuple[Tensor, Tensor]], by_row: bool) -> None:
    """Check that three groups of two rows are pruned as each group is."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 70, generator=generator).to(DEVICE)
    rows = torch.rand(6, generator=generator).to(DEVICE) if by_row else None
    cols = torch.rand(3, 70, generator=generator).to(DEVICE)
    counts = counts_of_all_kinds(70, seed=1)[0]
    pruned, mask = function(weight, rows, cols, counts)
    for group in range(3):
        part = slice(2 * group, 2 * group + 2)
        single = prune_rows(
            weight[part], None if rows is None else rows[part], cols[group], counts[part]
        )
        assert torch.equal(pruned[part], single[0])
        assert torch.equal(mask[part], single[1])


@given(st.integers(1, 5), st.integers(1, 40), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_the_reference_prunes_the_lowest_scores(
    rows: int, cols: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=generator).to(dtype)
    counts = torch.randint(0, cols + 1, (rows,), generator=generator)
    norm = torch.rand(cols, generator=generator)
    pruned, mask = prune_rows(weight, None, norm, counts)
    assert mask is not None
    assert torch.equal(mask.sum(1), counts)
    assert torch.equal(pruned, weight.masked_fill(mask, 0))
    scores = weight.float().abs() * norm
    for row in range(rows):
        if 0 < counts[row] < cols:
            assert scores[row][mask[row]].max() <= scores[row][~mask[row]].min()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_zeroed_weights_are_plus_zero_and_the_others_unchanged(dtype: torch.dtype) -> None:
    weight = torch.tensor([[-1.5, -0.0, float("inf"), -2.0]]).to(dtype)
    mask = torch.tensor([[True, False, False, True]])
    pruned = zeroed(weight, mask)
    assert torch.equal(pruned, weight.masked_fill(mask, 0))
    assert torch.equal(torch.signbit(pruned), torch.tensor([[False, True, False, False]]))
    assert torch.equal(zeroed(weight.T, mask.T), pruned.T)


def test_a_cpu_never_imports_triton() -> None:
    code = """if True:
        import sys
        from neuroal.topups.neuroal import NeuroAL
        from tests.small_models import allocation_context, tiny_llama
        NeuroAL(block_candidates=[0.1], row_candidates=[0.1]).allocate(
            allocation_context(tiny_llama())
        )
        sys.exit(any(n.startswith("neuroal") and n.endswith("_triton") for n in sys.modules))
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_rows_that_lose_a_part_of_equal_scores_have_ties_to_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[int] = []

    def break_ties(scores: Tensor, *rest: Any) -> Tensor:
        rows.append(len(scores))
        return original(scores, *rest)

    original = selection._break_ties
    monkeypatch.setattr(selection, "_break_ties", break_ties)
    scores = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 2.0]])
    mask = sorted_lowest_per_row(scores, torch.tensor([0, 2, 3, 1]))
    assert mask.sum(1).tolist() == [0, 2, 3, 1]
    assert rows == [1]
