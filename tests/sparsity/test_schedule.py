"""Importances become densities around the target, and reference rules replace extreme ratios."""

from __future__ import annotations

import numpy as np
import pytest

from neuroal.sparsity.budget import Rules
from neuroal.sparsity.schedule import clip_blocks, densities_of_importances

RATIOS = np.array([-0.2, 0.0, 0.005, 0.5, 0.995, 1.0, 1.3])


def test_reference_rules_replace_only_ratios_outside_of_zero_and_one() -> None:
    clipped = clip_blocks(RATIOS, Rules.REFERENCE)
    assert clipped == [0.01, 0.01, 0.005, 0.5, 0.995, 0.99, 0.99]


def test_exact_rules_leave_ratios_to_the_budget() -> None:
    assert clip_blocks(RATIOS, Rules.EXACT) == RATIOS.tolist()


def test_densities_span_twice_the_spread_around_their_mean() -> None:
    densities = densities_of_importances([1.0, 2.0, 5.0], sparsity=0.6, spread=0.1)
    assert densities.mean() == pytest.approx(0.4)
    assert densities - densities[0] == pytest.approx([0.0, 0.05, 0.2])


def test_equal_importances_give_the_target_density() -> None:
    assert densities_of_importances([3.0, 3.0], sparsity=0.6, spread=0.1).tolist() == [0.4, 0.4]


def test_the_float64_operations_have_the_order_of_the_reference_code() -> None:
    """The last bits of another order may change the budgets of ``rules=reference``."""
    x = np.random.default_rng(0).random(100)
    scaled = (x - x.min()) / (x.max() - x.min()) * 0.08 * 2
    expected = scaled - scaled.mean() + (1 - 0.7)
    assert densities_of_importances(x, 0.7, 0.08).tolist() == expected.tolist()
