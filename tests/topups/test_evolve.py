"""Evolution accepts improvements only, and its exchanges stay within bounds."""

from __future__ import annotations

import random

import pytest

from neuroal.errors import UserError
from neuroal.gradients.divergence import OutputDivergence
from neuroal.gradients.row_sparsity import HIGHEST, LOWEST
from neuroal.topups.evolve import Evolve
from tests.small_models import allocation_context, tiny_llama


def test_an_equal_divergence_does_not_replace_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OutputDivergence, "value", lambda *_: 1.0)
    context = allocation_context(tiny_llama(num_hidden_layers=2))
    allocation = Evolve(passes=4, windows=2).allocate(context)
    assert allocation.report["kept"] == 0
    assert set(allocation.plan.ratios.values()) == {0.6}


@pytest.mark.parametrize("parent", [{"a": 0.95, "b": 0.5}, {"a": 0.05, "b": 0.5}])
def test_exchanges_keep_the_total_and_every_unit_within_bounds(parent: dict[str, float]) -> None:
    generator, sizes = random.Random(0), {"a": 30, "b": 10}
    children = [Evolve()._mutate(parent, sizes, generator) for _ in range(100)]
    assert any(child != parent for child in children)
    for child in children:
        assert all(LOWEST <= ratio <= HIGHEST for ratio in child.values())
        zeros = [sum(sizes[key] * ratios[key] for key in sizes) for ratios in (child, parent)]
        assert zeros[0] == pytest.approx(zeros[1])


@pytest.mark.parametrize("move", [0.0, 1.0, 1.5])
def test_the_largest_move_lies_between_zero_and_one(move: float) -> None:
    with pytest.raises(UserError, match=f"topup.largest_move={move}: must be above 0 and below 1"):
        Evolve(largest_move=move)
