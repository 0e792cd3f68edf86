"""Settings of equal marginals that depend on other settings or on the windows."""

from __future__ import annotations

import warnings

import pytest

from neuroal.pruners.magnitude import Magnitude
from neuroal.topups.marginal import EqualMarginals, _Search
from tests.small_models import allocation_context, random_tokens, tiny_llama


@pytest.mark.parametrize(
    ("objective", "weight"), [("kl", 1.0), ("cross_entropy", 1.0), ("block_error", 0.0)]
)
def test_the_block_error_has_no_second_order_term(objective: str, weight: float) -> None:
    assert EqualMarginals(objective=objective).resolved["second_order"] == weight


@pytest.mark.parametrize(("windows", "warns"), [(31, True), (32, False)])
def test_thirty_two_windows_are_enough(windows: int, warns: bool) -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    context = allocation_context(decoder, tokens=random_tokens(windows, 4), batch=32)
    topup = EqualMarginals(start="uniform", step="linear", linear_iterations=1, windows=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        topup.allocate(context)
    assert any("topup=marginal fits only" in str(warning.message) for warning in caught) == warns


def test_objectives_of_tokens_accept_a_second_order_term() -> None:
    assert EqualMarginals(objective="kl", second_order=0.1).resolved["second_order"] == 0.1


@pytest.mark.parametrize(("seqlen", "skip"), [(64, 8), (10, 5)])
def test_the_initial_information_skips_at_most_half_of_a_window(seqlen: int, skip: int) -> None:
    assert EqualMarginals().fisher(random_tokens(4, seqlen)).skip == skip


@pytest.mark.parametrize("step", ["linear", "row", "both"])
def test_the_initial_plan_has_ratios_per_row_unless_the_step_is_by_linear(step: str) -> None:
    tokens = random_tokens(4, 24)
    context = allocation_context(tiny_llama(num_hidden_layers=1), Magnitude(), tokens=tokens)
    rows = _Search(EqualMarginals(step=step, windows=2), context).rows
    ratios = rows.plan(0.6, True).ratios.values()
    assert any(bool((ratio != ratio[0]).any()) for ratio in ratios) == (step != "linear")
