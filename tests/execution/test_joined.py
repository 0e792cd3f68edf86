"""Statistics of several devices are joined window by window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.joined import joined_statistics
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.parallel.peers import ALONE, Peers


class Second(Peers):
    """The second of two devices; the first one has `others`, in the order of the exchanges."""

    rank, size = 1, 2

    def __init__(self, others: list[Tensor]) -> None:
        self._others = others

    def all_of(self, tensor: Tensor) -> list[Tensor]:
        return [self._others.pop(0), tensor]


def test_one_device_keeps_its_statistics() -> None:
    statistics = {"a": InputStatistics(torch.ones(2, 3))}
    assert joined_statistics(statistics, ALONE.share(2)) == statistics


def test_linears_with_one_input_share_the_joined_statistics() -> None:
    inputs = InputStatistics(torch.full((1, 2), 3.0))
    statistics = {"a": inputs, "b": inputs}
    keys = torch.tensor([[key_number(statistics), 0]])
    peers = Second([keys, torch.tensor([[1.0, 1.0], [2.0, 2.0]])])
    joined = joined_statistics(statistics, peers.share(3))
    assert joined["a"] is joined["b"]
    assert joined["a"].square_sums.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]


def test_windows_that_reach_other_linears_are_refused_in_one_line() -> None:
    statistics = {"a": InputStatistics(torch.ones(1, 2))}
    with pytest.raises(UserError, match=r"^devices: .* do not reach the same linears; use devices"):
        joined_statistics(statistics, Second([torch.tensor([[1, 0]])]).share(2))


@pytest.mark.parametrize("own", [None, 5])
def test_linears_that_see_some_tokens_are_refused_in_one_line(own: int | None) -> None:
    statistics = {"a": InputStatistics(torch.ones(1, 2), tokens=own)}
    others = [torch.tensor([[1, int(own is None)]])]
    with pytest.raises(UserError, match=r"^devices: some linears do not see every token once"):
        joined_statistics(statistics, Second(others).share(2))


def key_number(statistics: dict[str, InputStatistics]) -> int:
    """Return what a device with these linears sends to the others."""
    seen: list[Tensor] = []

    class Recording(Peers):
        size = 2

        def all_of(self, tensor: Tensor) -> list[Tensor]:
            seen.append(tensor)
            return [tensor, tensor]

    joined_statistics(statistics, Recording().share(2))
    return int(seen[0][0, 0])
