"""What training leaves out of a step, and what it puts back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from targeted_dropout import TargetedDropout


def matrices() -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(6, n, generator=random)) for n in (40, 24, 40)]


@pytest.mark.parametrize(("share", "rate"), [(0.5, 0.5), (0.25, 1.0), (0.1, 0.9)])
def test_only_small_weights_of_a_row_are_left_out(share: float, rate: float) -> None:
    weights = matrices()
    before = [weight.detach().clone() for weight in weights]
    with TargetedDropout(weights, share, rate, seed=3).at(7):
        inside = [weight.detach().clone() for weight in weights]
        sum((weight * weight).sum() for weight in weights).backward()

    left_out = 0
    for weight, old, thinned in zip(weights, before, inside, strict=True):
        gone = thinned == 0
        assert torch.equal(weight, old)
        assert torch.equal(thinned[~gone], old[~gone])
        count = round(share * old.shape[1])
        places = old.abs().argsort(1)[:, :count]
        assert not gone.scatter(1, places, False).any()
        if rate == 1:
            assert gone.sum(1).tolist() == [count] * len(old)
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, 2 * thinned)
        left_out += int(gone.sum())
    candidates = sum(round(share * w.shape[1]) * len(w) for w in weights)
    assert left_out / candidates == pytest.approx(rate, abs=0.15)


def test_a_step_is_a_function_of_its_number_and_the_seed() -> None:
    def inside(seed: int, step: int) -> list[torch.Tensor]:
        weights = matrices()
        with TargetedDropout(weights, 0.5, 0.5, seed).at(step):
            return [weight.detach().clone() for weight in weights]

    first = inside(0, 1)
    assert all(map(torch.equal, first, inside(0, 1)))
    assert not all(map(torch.equal, first, inside(0, 2)))
    assert not all(map(torch.equal, first, inside(1, 1)))


def test_weights_come_back_when_a_step_fails() -> None:
    weights = matrices()
    before = [weight.detach().clone() for weight in weights]
    with pytest.raises(ValueError, match="no"), TargetedDropout(weights, 0.5, 1.0, 0).at(0):
        raise ValueError("no")
    assert all(map(torch.equal, weights, before))


def test_without_a_share_nothing_happens() -> None:
    weights = matrices()
    with TargetedDropout(weights, 0.0, 0.5, 0).at(0):
        assert all(bool((weight != 0).all()) for weight in weights)
