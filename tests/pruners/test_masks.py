"""Masks prune exactly the given number of lowest scores, with a fixed rule for ties."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroal.kernels.column_blocks import lowest_overall
from neuroal.kernels.selection import lowest_per_row
from neuroal.pruners.packed import unpack
from tests.masks import digest, pack


@st.composite
def scores_and_counts(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    rows, cols = draw(st.integers(1, 6)), draw(st.integers(1, 17))
    # Few distinct values, infinities and zeros among them, so that ties are common.
    values = st.sampled_from([0.0, 1e-30, 0.5, 1.0, 2.0, float("inf")])
    scores = draw(
        st.lists(st.lists(values, min_size=cols, max_size=cols), min_size=rows, max_size=rows)
    )
    counts = draw(st.lists(st.integers(0, cols), min_size=rows, max_size=rows))
    return torch.tensor(scores), torch.tensor(counts)


@given(scores_and_counts(), st.booleans())
def test_masks_equal_those_of_a_stable_sort(
    case: tuple[Tensor, Tensor], ties_to_higher: bool
) -> None:
    scores, counts = case
    mask = lowest_per_row(scores, counts, ties_to_higher=ties_to_higher)
    cols = scores.shape[1]
    for row, count, row_mask in zip(scores, counts, mask, strict=True):
        expected = torch.zeros(cols, dtype=torch.bool)
        if ties_to_higher:  # keep the highest, the lower column first
            highest = row.sort(descending=True, stable=True).indices[: cols - int(count)]
            expected[:] = True
            expected[highest] = False
        else:
            expected[row.sort(stable=True).indices[: int(count)]] = True
        assert torch.equal(row_mask, expected)


@given(scores_and_counts())
def test_lowest_overall_breaks_ties_in_row_major_order(case: tuple[Tensor, Tensor]) -> None:
    scores, counts = case
    count = int(counts.sum())
    expected = torch.zeros(scores.numel(), dtype=torch.bool)
    expected[scores.flatten().sort(stable=True).indices[:count]] = True
    assert torch.equal(lowest_overall(scores, count), expected.view_as(scores))


def test_half_precision_scores_give_the_same_mask() -> None:
    scores = torch.rand(5, 40).half()
    counts = torch.tensor([0, 1, 20, 39, 40])
    assert torch.equal(lowest_per_row(scores, counts), lowest_per_row(scores.float(), counts))


def test_unpacking_restores_a_packed_mask() -> None:
    mask = torch.rand(5, 7) < 0.3
    assert torch.equal(unpack(pack(mask), (5, 7)), mask)
    assert np.array_equal(pack(mask), np.packbits(mask.numpy()))
    assert digest(mask) != digest(~mask)
