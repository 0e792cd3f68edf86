"""Information of linears that see some of the tokens."""

from __future__ import annotations

import pytest
import torch

from neuroal.gradients.information import FORMS, Collector, Tokens
from neuroal.models.linears import PrunableLinear


@pytest.mark.parametrize("form", FORMS)
def test_tokens_of_an_expert_keep_their_positions_in_the_windows(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([1, 3, 8, 9, 13])
    x, gradient = (torch.zeros(16, cols) for cols in (3, 4))
    x[positions] = torch.randn(5, 3, generator=generator)
    gradient[positions] = torch.randn(5, 4, generator=generator)
    collector = Collector(form, 1.0, skip=2)
    collector.see("0.all", Tokens(8), x.view(2, 8, 3), gradient.view(2, 8, 4))
    collector.see("0.some", Tokens(8, positions), x[positions], gradient[positions])
    linears = [PrunableLinear(0, name, torch.nn.Linear(3, 4)) for name in ("all", "some")]
    values = [part.values() for part in collector.finish(linears, 16).values()]
    torch.testing.assert_close(*values)


def test_all_tokens_count_if_their_positions_are_unknown() -> None:
    collector = Collector("elementwise", 1.0, skip=2)
    x, gradient = torch.ones(5, 3), torch.ones(5, 4)
    collector.see("0.some", Tokens(8), x, gradient)
    linear = PrunableLinear(0, "some", torch.nn.Linear(3, 4))
    values = collector.finish([linear], 1)["0.some"].values()
    torch.testing.assert_close(values, torch.full((4, 3), 5.0))
