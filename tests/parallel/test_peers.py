"""A device exchanges small tensors together, and large ones without copying them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuroal.parallel.peers import SMALL
from tests.parallel.twins import Twins


def test_many_small_tensors_take_as_many_exchanges_as_one() -> None:
    counts = []
    for number in (1, 50):
        peers = Twins()
        peers.sums([torch.ones(3, n) for n in range(1, number + 1)])
        counts.append(peers.exchanges)
        peers.joined_rows([torch.ones(2, n) for n in range(1, number + 1)], [4] * number)
        counts.append(peers.exchanges)
    assert counts == [2, 3, 2, 3]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_sums_keep_their_type_and_shape(dtype: torch.dtype) -> None:
    tensors = [torch.ones(2, 4, dtype=dtype), torch.ones((), dtype=torch.float32)]
    totals = Twins().sums(tensors)
    assert [total.dtype for total in totals] == [dtype, torch.float32]
    assert [total.shape for total in totals] == [(2, 4), ()]
    assert all(bool((total == 2).all()) for total in totals)


def test_large_tensors_are_exchanged_alone() -> None:
    class Recording(Twins):
        sizes: list[int]

        def exchanged(self, tensor: Tensor) -> Tensor:
            self.sizes.append(tensor.numel())
            return super().exchanged(tensor)

    peers, large = Recording(), torch.ones(SMALL // 4 + 2)
    peers.sizes = []
    peers.sums([torch.ones(2), large, torch.ones(4), large])
    assert sorted(peers.sizes) == [6, len(large), len(large)]
