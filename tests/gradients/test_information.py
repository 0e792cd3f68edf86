"""Information of linears that see some of the tokens."""

from __future__ import annotations

import pytest
import torch

from neuroal.execution.compiled_gradients import Reduction, weight_gradient
from neuroal.gradients.information import FORMS, Factored, elementwise, factored, reduction
from neuroal.parallel.peers import ALONE, Share


@pytest.mark.parametrize("form", FORMS)
def test_tokens_of_an_expert_keep_their_positions_in_the_windows(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([1, 3, 8, 9, 13])
    x, gradient = (torch.zeros(16, cols) for cols in (3, 4))
    x[positions] = torch.randn(5, 3, generator=generator)
    gradient[positions] = torch.randn(5, 4, generator=generator)
    sums = reduction(form, skip=2)
    every = sums.of_windows(x.view(2, 8, 3), gradient.view(2, 8, 4))
    some = sums.of_tokens(x[positions], gradient[positions], positions % 8)
    for of_every, of_some in zip(every, some, strict=True):
        torch.testing.assert_close(of_every, of_some)


def test_all_tokens_count_if_their_positions_are_unknown() -> None:
    (total,) = reduction("elementwise", skip=2).of_tokens(torch.ones(5, 3), torch.ones(5, 4), None)
    torch.testing.assert_close(total, torch.full((4, 3), 5.0))


def test_gradients_of_weights_hold_all_tokens() -> None:
    x, gradient = torch.rand(5, 3), torch.rand(5, 4)
    (product,) = Reduction(weight_gradient).of_tokens(x, gradient, torch.arange(5))
    torch.testing.assert_close(product, gradient.T @ x)


def test_the_factored_form_is_the_power_of_the_outputs_times_the_inputs() -> None:
    sums = {"a": (torch.tensor([8.0, 18.0]), torch.tensor([2.0, 4.0, 6.0]))}
    information, finite = factored(sums, 2, Share(ALONE, 1), 0.5)
    assert finite
    expected = torch.tensor([[2.0], [3.0]]) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(information["a"].values(), expected)
    weight = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 0.0, 3.0]])
    scores = information["a"].terms().scores(weight)
    torch.testing.assert_close(scores.square(), weight.square() * expected)


@pytest.mark.parametrize("wrong", [torch.inf, torch.nan])
def test_sums_that_are_not_finite_are_seen_in_any_linear(wrong: float) -> None:
    share, good = Share(ALONE, 1), torch.ones(2, 3)
    bad = good.clone()
    bad[1, 2] = wrong
    for first, second, finite in ((good, good, True), (good, bad, False), (bad, good, False)):
        assert bool(elementwise({"a": (first,), "b": (second,)}, 1, share)[1]) == finite
        sums = {"a": (first[:, 2], first[0]), "b": (second[:, 2], second[0])}
        assert bool(factored(sums, 1, share, 1.0)[1]) == finite


def test_earlier_information_counts_by_its_share() -> None:
    first, second = (Factored(torch.full((2,), x), torch.full((3,), 2 * x), 1.0) for x in (2.0, 6))
    joined = second.joined(first, 0.25)
    assert joined.outputs.tolist() == [5.0] * 2
    assert joined.inputs.tolist() == [10.0] * 3
