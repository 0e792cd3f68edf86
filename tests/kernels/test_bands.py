"""The costs of a band equal their definition on every device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroal.gradients.weight_order import ranks_of
from neuroal.kernels.bands import band_costs

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 40),
    width=st.integers(1, 50),
    curvature=st.sampled_from([0.0, 2.5]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_costs_are_the_mean_over_the_band(
    device: str, rows: int, cols: int, width: int, curvature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradient, weight = torch.randn(2, rows, cols, generator=generator).unbind()
    counts = torch.randint(0, cols + 1, (rows,), generator=generator)
    ranks = ranks_of(weight.abs())
    costs = band_costs(
        gradient.to(device), weight.to(device), ranks.to(device), counts, width, 3.0, curvature
    )
    for row in range(rows):
        low, high = max(int(counts[row]) - width, 0), min(int(counts[row]) + width, cols)
        gains = [
            -float(gradient[row, c]) * float(weight[row, c]) / 3
            for c in range(cols)
            if low <= int(ranks[row, c]) < high
        ]
        expected = sum(g + curvature * g * g for g in gains) / len(gains)
        assert float(costs[row]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
