"""AlphaPruning fits the exponents of power laws, and its ratios follow the exponents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.sparsity.budget import Rules
from neuroal.topups.alpha import AlphaPruning, block_ratios, exponent_of, hill_exponent
from tests.small_models import allocation_context, tiny_llama


def slow_exponent(values: list[float]) -> float:
    """Return the exponent from the definition of the fit, one number at a time."""
    logs = [math.log10(value) for value in values]
    low, width = min(logs), (max(logs) - min(logs)) / 100
    counts = [0] * 100
    for value in logs:
        counts[min(int((value - low) / width), 99)] += 1
    peak = 10 ** (low + counts.index(max(counts)) * width)
    best_distance, best_alpha = math.inf, 0.0
    for start in range(len(values) - 1):
        x_min = values[start]
        if x_min < math.log10(0.95 * peak) or x_min > 1.5 * peak:
            continue
        tail = values[start:]
        alpha = 1 + len(tail) / sum(math.log(value / x_min) for value in tail)
        distance = max(
            abs(1 - (value / x_min) ** (1 - alpha) - index / len(tail))
            for index, value in enumerate(tail)
        )
        if distance < best_distance:
            best_distance, best_alpha = distance, alpha
    return best_alpha


@given(st.integers(0, 200), st.sampled_from(["pareto", "lognormal", "wishart"]))
def test_the_exponent_follows_the_definition_of_the_fit(seed: int, kind: str) -> None:
    generator = np.random.default_rng(seed)
    values = {
        "pareto": lambda: 0.3 * (1 + generator.pareto(1.7, 60)),
        "lognormal": lambda: generator.lognormal(-1, 1.2, 60),
        "wishart": lambda: np.linalg.svd(generator.normal(size=(40, 90)), compute_uv=False) ** 2,
    }[kind]()
    spectrum = np.sort(values)
    assert hill_exponent(spectrum) == pytest.approx(slow_exponent(spectrum.tolist()), rel=1e-9)


def test_thresholds_below_the_logarithm_of_the_peak_are_not_tried() -> None:
    """The peak is a cluster at 1000, and thresholds begin at log10(950) instead of 1."""
    quantiles = (np.arange(60) + 0.5) / 60
    power_law = (1 - quantiles) ** (-1 / (1.3 - 1))
    spectrum = np.sort(np.concatenate([power_law, 1000 + np.arange(6)]))
    expected = slow_exponent(spectrum.tolist())
    assert hill_exponent(spectrum) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(1.336, abs=1e-3)  # 1.277 from the lowest threshold


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_the_fit_recovers_the_exponent_of_a_power_law(alpha: float) -> None:
    quantiles = (np.arange(4000) + 0.5) / 4000
    spectrum = np.sort((1 - quantiles) ** (-1 / (alpha - 1)))
    assert hill_exponent(spectrum) == pytest.approx(alpha, rel=0.02)


def test_the_fit_uses_the_squared_singular_values_of_the_weight() -> None:
    linear = tiny_llama().linears[0][-1]
    singular = torch.linalg.svdvals(linear.weight.detach()).double().numpy()
    expected = slow_exponent(np.sort(singular**2).tolist())
    assert exponent_of(linear) == pytest.approx(expected, rel=1e-4)


def test_only_singular_values_at_the_level_of_rounding_errors_are_left_out() -> None:
    linear = tiny_llama().linears[0][0]
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(32, 32, generator=generator))[0] for _ in range(2))
    values = torch.logspace(-4, 0, 12)  # of rank 12, with squares down to 1e-8
    linear.weight = left[:, :12] @ values.diag() @ right[:12]
    expected = hill_exponent(values.double().square().numpy())
    assert exponent_of(linear) == pytest.approx(expected, rel=0.01)


def test_two_distinct_singular_values_are_enough() -> None:
    linear = tiny_llama().linears[0][0]
    linear.weight = torch.diag(torch.tensor([3.0, 2.0] + [0.0] * 30))
    assert exponent_of(linear) == pytest.approx(1 + 2 / math.log(9 / 4))


def test_the_exponent_of_a_block_is_the_mean_over_its_linears() -> None:
    decoder = DecoderModel(tiny_llama().model, exclude=["0.mlp.*"])
    exponents = AlphaPruning().allocate(allocation_context(decoder)).report["exponents"]
    expected = [np.mean([exponent_of(linear) for linear in block]) for block in decoder.linears]
    assert exponents == pytest.approx(expected)


def test_lighter_tails_are_pruned_more_at_the_same_mean() -> None:
    decoder = tiny_llama()
    ratios = block_ratios(decoder, {0: 2.0, 1: 5.0, 2: 3.0, 3: 4.0}, 0.6, 0.3)
    assert ratios[0] < ratios[2] < ratios[3] < ratios[1]
    assert sum(ratios.values()) / 4 == pytest.approx(0.6)
    assert ratios[1] / ratios[0] == pytest.approx(1.3 / 0.7)
    assert block_ratios(decoder, {0: 2.0, 1: 2.0}, 0.6, 0.3) == {0: 0.6, 1: 0.6}


def test_extreme_ratios_stay_in_range_under_the_reference_rules() -> None:
    context = allocation_context(tiny_llama(), sparsity=0.9, rules=Rules.REFERENCE)
    ratios = AlphaPruning(epsilon=0.9).allocate(context).plan.ratios.values()
    assert all(0 < float(ratio) <= 0.99 for ratio in ratios)


def test_errors_name_a_weight_without_a_spectrum() -> None:
    decoder = tiny_llama()
    linear = decoder.linears[1][0]
    linear.weight.zero_()
    with pytest.raises(UserError, match=r"1\.self_attn\.q_proj"):
        AlphaPruning().allocate(allocation_context(decoder))


def test_errors_name_invalid_settings() -> None:
    with pytest.raises(UserError, match=r"topup\.epsilon=1\.0"):
        AlphaPruning(epsilon=1.0)
