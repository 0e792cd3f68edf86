"""ATP's slopes, and what it estimates and refuses."""

from __future__ import annotations

import pytest

from neuroal.errors import UserError
from neuroal.pruners.wanda import Wanda
from neuroal.topups.atp import ATP, slopes
from tests.small_models import allocation_context, tiny_llama


def test_slopes_are_multiples_of_the_step_that_leave_all_blocks_within_bounds() -> None:
    assert slopes(5, 0.9, 0.02) == pytest.approx([0.02, 0.04])  # up to 0.2 / 4
    assert slopes(3, 0.1, 0.05) == pytest.approx([0.05, 0.1])
    assert slopes(1, 0.5, 0.1) == []


def test_a_single_block_gets_the_target_without_a_slope() -> None:
    allocation = ATP().allocate(allocation_context(tiny_llama(num_hidden_layers=1)))
    assert allocation.report == {"beta": 0.0}
    assert set(allocation.plan.ratios.values()) == {0.6}


def test_the_step_is_above_zero_and_at_most_one() -> None:
    ATP(step=1.0)
    for step in (0.0, 1.5):
        with pytest.raises(UserError, match=f"topup.step={step}: must be above 0 and at most 1"):
            ATP(step=step)


def test_a_slope_takes_one_pruning_and_two_passes() -> None:
    assert ATP().search_passes(8) == 2 * ATP().search_prunings(Wanda()) == 50
