"""Targeted dropout drops small weights in a step and restores them afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments" / "train_zoo"))

from targeted_dropout import TargetedDropout


def matrices() -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(6, n, generator=random)) for n in (40, 24, 40)]


@pytest.mark.parametrize(("share", "rate"), [(0.5, 0.5), (0.25, 1.0), (0.1, 0.9)])
def test_only_small_weights_of_a_row_are_dropped(share: float, rate: float) -> None:
    weights = matrices()
    before = [weight.detach().clone() for weight in weights]
    with TargetedDropout(weights, share, rate, seed=3).at(7):
        inside = [weight.detach().clone() for weight in weights]
        sum((weight * weight).sum() for weight in weights).backward()

    dropped = 0
    for weight, old, thinned in zip(weights, before, inside, strict=True):
        is_dropped = thinned == 0
        assert torch.equal(weight, old)
        assert torch.equal(thinned[~is_dropped], old[~is_dropped])
        count = round(share * old.shape[1])
        smallest = old.abs().argsort(1)[:, :count]
        assert not is_dropped.scatter(1, smallest, False).any()
        if rate == 1:
            assert is_dropped.sum(1).tolist() == [count] * len(old)
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, 2 * thinned)
        dropped += int(is_dropped.sum())
    candidates = sum(round(share * w.shape[1]) * len(w) for w in weights)
    assert dropped / candidates == pytest.approx(rate, abs=0.15)


def test_a_step_depends_only_on_its_number_and_the_seed() -> None:
    def inside(seed: int, step: int) -> list[torch.Tensor]:
        weights = matrices()
        with TargetedDropout(weights, 0.5, 0.5, seed).at(step):
            return [weight.detach().clone() for weight in weights]

    first = inside(0, 1)
    assert all(map(torch.equal, first, inside(0, 1)))
    assert not all(map(torch.equal, first, inside(0, 2)))
    assert not all(map(torch.equal, first, inside(1, 1)))


def test_weights_are_restored_when_a_step_fails() -> None:
    weights = matrices()
    before = [weight.detach().clone() for weight in weights]
    with pytest.raises(ValueError, match="no"), TargetedDropout(weights, 0.5, 1.0, 0).at(0):
        raise ValueError("no")
    assert all(map(torch.equal, weights, before))


def test_a_share_of_zero_drops_nothing() -> None:
    weights = matrices()
    with TargetedDropout(weights, 0.0, 0.5, 0).at(0):
        assert all(bool((weight != 0).all()) for weight in weights)
