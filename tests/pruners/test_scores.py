"""Pruners that score weights follow their formulas, computed entry by entry."""

from __future__ import annotations

import math

import pytest
import torch

from neuroal.kernels.input_statistics import InputStatistics
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.wanda import Wanda

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [-4.0, 0.25, 3.0]])
SQUARES = torch.tensor([[1.0, 4.0, 16.0], [3.0, 12.0, 2.0]])  # two windows
NORM = [math.sqrt(2.0), math.sqrt(8.0), 3.0]


def test_magnitude_scores_absolute_values() -> None:
    assert torch.equal(Magnitude().scores(WEIGHT, None), WEIGHT.abs())


def test_wanda_scores_absolute_values_times_the_norm_of_the_input() -> None:
    scores = Wanda().scores(WEIGHT, InputStatistics(SQUARES))
    assert scores.tolist() == [
        pytest.approx([abs(float(w)) * a for w, a in zip(row, NORM, strict=True)]) for row in WEIGHT
    ]


def test_multiflow_multiplies_by_the_mean_saliency_of_the_row_and_of_the_column() -> None:
    flow = [[abs(float(w)) * a for w, a in zip(row, NORM, strict=True)] for row in WEIGHT]
    rows = [sum(row) / 3 for row in flow]
    cols = [(flow[0][c] + flow[1][c]) / 2 for c in range(3)]
    scores = Multiflow().scores(WEIGHT, InputStatistics(SQUARES))
    for row in range(2):
        expected = [abs(float(WEIGHT[row, c])) * rows[row] * cols[c] for c in range(3)]
        assert scores[row].tolist() == pytest.approx(expected)
