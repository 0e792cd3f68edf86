"""Ranks take as little memory as the number of columns allows."""

from __future__ import annotations

import pytest
import torch

from neuroal.gradients.weight_order import ranks_of


@pytest.mark.parametrize(("cols", "dtype"), [(2**15 - 1, torch.int16), (2**15, torch.int32)])
def test_ranks_have_the_smallest_type_that_holds_them(cols: int, dtype: torch.dtype) -> None:
    ranks = ranks_of(torch.arange(cols, 0, -1.0)[None])
    assert ranks.dtype == dtype
    assert torch.equal(ranks[0].long(), torch.arange(cols - 1, -1, -1))
