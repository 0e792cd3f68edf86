"""The costs of a band equal their definition on every device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroal.gradients.weight_order import ranks_of
from neuroal.kernels.bands import band_costs, band_entries, zeroed_below_rank

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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_lowest_ranks_of_each_row_are_zeroed(device: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 1500, generator=generator).to(dtype)
    counts = torch.tensor([0, 1, 700, 1499, 1500, 3, 1024])
    ranks = ranks_of(weight.float().abs())
    zeroed = zeroed_below_rank(weight.to(device), ranks.to(device), counts)
    assert torch.equal((zeroed == 0).sum(1).cpu(), counts)
    for row, count in enumerate(counts.tolist()):
        remaining = zeroed[row].cpu() != 0
        assert torch.equal(zeroed[row].cpu()[remaining], weight[row][remaining])
        assert bool((ranks[row][remaining] >= count).all())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("cols", "width"), [(40, 3), (40, 20), (40, 60), (3000, 300)])
def test_costs_of_the_entries_of_a_band_are_those_of_all_entries(
    device: str, dtype: torch.dtype, cols: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(cols)
    gradient, weight = (
        part.to(device, dtype) for part in torch.randn(2, 6, cols, generator=generator)
    )
    ranks = ranks_of(weight.float().abs())
    counts = torch.tensor([0, 1, cols // 3, cols // 2, cols - 1, cols])
    entries = band_entries(gradient, ranks, counts, width)
    assert entries.shape == (6, min(cols, 2 * width))
    expected = band_entries(gradient.cpu(), ranks.cpu(), counts, width)
    assert torch.equal(entries.cpu(), expected)
    costs = [
        band_costs(part, weight, ranks, counts, width, 2.0, 1.5) for part in (gradient, entries)
    ]
    assert torch.equal(*costs)
