"""Zeros of rows whose weights are pruned in the order of a pruner."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuroal.gradients import row_costs
from neuroal.gradients.row_costs import costs_by_band, zeros_by_cost
from neuroal.gradients.weight_order import ranks_of


def test_the_costs_of_bands_follow_the_order_and_never_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_costs, "BANDS", 3)
    monkeypatch.setattr(row_costs, "NEIGHBOURS", 1)
    costs = torch.tensor([[9.0, 1.0, 5.0, 3.0, 2.0, 8.0]])
    ranks = torch.tensor([[5, 0, 1, 2, 3, 4]])
    # In order: 1, 5 | 3, 2 | 8, 9. The second band costs 2.5, but the first one comes with it.
    assert costs_by_band(costs, ranks).tolist() == [[3.0, 3.0, 8.5]]


def test_neighbouring_bands_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_costs, "NEIGHBOURS", 3)
    costs = torch.tensor([[0.0, 3.0, 6.0, 12.0]])
    assert costs_by_band(costs, ranks_of(costs)).tolist() == [[1.5, 3.0, 7.0, 9.0]]


@pytest.mark.parametrize("zeros", [1, 100, 1000, 3000, 4600])
def test_the_cheapest_bands_of_all_rows_are_zeroed(zeros: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (8, 300), "b": (40, 60)}
    costs: dict[str, Tensor] = {}
    for key, (rows, cols) in shapes.items():
        scale = torch.rand(rows, 1, generator=generator) * 10
        weights = scale * torch.rand(rows, cols, generator=generator)
        costs[key] = costs_by_band(weights, ranks_of(weights))
    counts = zeros_by_cost(costs, {key: cols for key, (_, cols) in shapes.items()}, zeros)
    total = sum(int(count.sum()) for count in counts.values())
    assert zeros <= total <= zeros + 2  # a band of row "a" has one or two weights
    dearest = max(
        float(costs[key][row, band - 1])
        for key, (rows, cols) in shapes.items()
        for row in range(rows)
        if (band := int(counts[key][row]) * min(256, cols) // cols)
    )
    cheapest = min(
        float(costs[key][row, band])
        for key, (rows, cols) in shapes.items()
        for row in range(rows)
        if (band := -(-int(counts[key][row]) * min(256, cols) // cols)) < min(256, cols)
    )
    assert dearest <= cheapest


def test_a_row_with_cheap_weights_late_in_its_order_loses_fewer() -> None:
    costs = torch.linspace(0, 1, 200).expand(2, 200).contiguous()
    ranks = torch.stack([torch.arange(200), torch.arange(199, -1, -1)])
    counts = zeros_by_cost({"a": costs_by_band(costs, ranks)}, {"a": 200}, 100)["a"]
    assert counts.tolist() == [100, 0]
