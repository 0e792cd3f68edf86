"""Settings of equal marginals that depend on other settings or on the windows."""

from __future__ import annotations

import warnings

import pytest

from neuroal.topups.marginal import EqualMarginals
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
