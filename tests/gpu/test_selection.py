"""The selection kernels compute the same masks as the PyTorch reference, at larger sizes."""

from __future__ import annotations

import pytest
import torch

from neuroal.kernels.selection import has_kernel, lowest_per_row, sorted_lowest_per_row

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("trial", range(60))
def test_random_selections_equal_the_reference(trial: int) -> None:
    generator = torch.Generator().manual_seed(trial)
    rows = int(torch.randint(1, 70, (1,), generator=generator))
    cols = int(torch.randint(32, 3000, (1,), generator=generator))
    scores = torch.randn(rows, cols, generator=generator)
    if trial % 3 == 0:  # ties
        scores = scores.mul(2).round()
    if trial % 4 == 0:
        scores[:, ::5] = float("inf")
        scores[:, 1::7] = float("-inf") if trial % 8 else 0.0
    if trial % 5 == 0:
        scores[0] = -0.0
    scores = scores.to("cuda", DTYPES[trial // 20])
    counts = torch.randint(0, cols + 1, (rows,), generator=generator)
    counts[:: max(rows // 3, 1)] = (0, cols)[trial % 2]
    assert has_kernel(scores)
    for higher in (False, True):
        mask = lowest_per_row(scores, counts, ties_to_higher=higher)
        expected = sorted_lowest_per_row(scores, counts, ties_to_higher=higher)
        assert torch.equal(mask, expected)
