"""Statistics of several devices are joined window by window, or added token by token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from neuroal.execution.joined import joined_statistics
from neuroal.kernels.input_statistics import InputStatistics, Need, StatisticsCollector
from neuroal.models.linears import PrunableLinear
from neuroal.parallel.peers import ALONE, Peers

ALL = frozenset(Need)
LINEARS = [PrunableLinear(0, name, nn.Linear(5, 2)) for name in ("q", "k", "expert", "never")]


class Second(Peers):
    """The second of two devices; `first` has the statistics of the other one."""

    rank, size = 1, 2

    def __init__(self, first: Sequence[Tensor]) -> None:
        self._first = list(first)

    def all_of(self, tensor: Tensor) -> Tensor:
        return torch.stack([self._first.pop(0), tensor])

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self._first.pop(0) + tensor for tensor in tensors]


def collector_of(x: Tensor, routed: Tensor | None) -> StatisticsCollector:
    """Return a collector that has seen x (windows, tokens, cols), and some tokens of an expert."""
    collector = StatisticsCollector(ALL)
    collector.start_batch(*x.shape[:2])
    collector.see("0.q", x)
    collector.see("0.k", x)
    if routed is not None:
        collector.see("0.expert", routed)
    return collector


def state_of(collector: StatisticsCollector, linears: Sequence[PrunableLinear]) -> list[Tensor]:
    """Return what a device with these statistics sends, in the order of the exchanges."""
    q = collector.finish()["0.q"]
    assert q.sums is not None
    assert q.variances is not None
    assert q.gram is not None
    flags = torch.tensor([[collector.is_regular(linear.key) for linear in linears]])
    sent = [flags, q.square_sums, q.sums, q.variances, q.gram]
    tokens, rows, sums, grams = [], [], [], []
    for linear in linears:
        if linear.name in ("expert", "never"):
            part = collector.token_sums(linear.key)
            zeros = torch.zeros(linear.cols)
            tokens.append(part.tokens if part else 0)
            rows.append(part.squares if part else zeros)
            sums.append(part.sums if part and part.sums is not None else zeros)
            grams.append(part.gram if part and part.gram is not None else torch.zeros(5, 5))
    return [*sent, torch.tensor(tokens), torch.cat(rows).double(), torch.cat(sums).double(), *grams]


@pytest.mark.parametrize("reached", ["both", "first", "second", "none"])
def test_routed_tokens_of_two_devices_are_those_of_one(reached: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=generator)
    first = torch.randn(6, 5, generator=generator) if reached in ("both", "first") else None
    second = torch.randn(3, 5, generator=generator) if reached in ("both", "second") else None
    parts = [part for part in (first, second) if part is not None]
    together = collector_of(x, torch.cat(parts) if parts else None).finish()

    peers = Second(state_of(collector_of(x[:2], first), LINEARS))
    own = collector_of(x[2:], second)
    joined = joined_statistics(own, LINEARS, ALL, peers.share(3))
    assert list(joined) == list(together)
    assert joined["0.q"] is joined["0.k"]
    for key, inputs in joined.items():
        assert inputs.tokens == together[key].tokens
        assert inputs.windows == 3
        for name in ("square_sums", "sums", "variances", "gram"):
            mine, expected = getattr(inputs, name), getattr(together[key], name)
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_one_device_keeps_its_statistics() -> None:
    collector = collector_of(torch.ones(2, 3, 5), None)
    joined = joined_statistics(collector, LINEARS, ALL, ALONE.share(2))
    assert joined.keys() == {"0.q", "0.k"}
    assert isinstance(joined["0.q"], InputStatistics)
