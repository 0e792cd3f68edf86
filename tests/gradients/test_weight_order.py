"""Ranks take as little memory as the number of columns allows."""

from __future__ import annotations

import pytest
import torch

from neuroal.execution.runner import BlockRunner
from neuroal.gradients.weight_order import WeightOrder, ranks_of
from neuroal.pruners.magnitude import Magnitude
from neuroal.tracking import QuietProgress
from tests.parallel.twins import Twins
from tests.small_models import random_tokens, tiny_llama


@pytest.mark.parametrize(("cols", "dtype"), [(2**15 - 1, torch.int16), (2**15, torch.int32)])
def test_ranks_have_the_smallest_type_that_holds_them(cols: int, dtype: torch.dtype) -> None:
    ranks = ranks_of(torch.arange(cols, 0, -1.0)[None])
    assert ranks.dtype == dtype
    assert torch.equal(ranks[0].long(), torch.arange(cols - 1, -1, -1))


def test_devices_exchange_the_gradients_of_a_band_at_once() -> None:
    decoder, tokens = tiny_llama(num_hidden_layers=1), random_tokens(2, 8)
    order = WeightOrder(decoder, Magnitude())
    order.compute(BlockRunner.capture(decoder, tokens, 2), QuietProgress())
    gradients = {linear.key: torch.rand_like(linear.weight) for linear in decoder}
    counts = {linear.key: torch.full((linear.rows,), linear.cols // 2) for linear in decoder}
    alone = order.summed(gradients, counts, lambda _: 4, decoder.peers.share(2))
    costs = {x.key: order.costs(x, alone[x.key], counts[x.key], 4) for x in decoder}
    twins = decoder.peers = Twins()
    sums = order.summed(gradients, counts, lambda _: 4, twins.share(2))
    assert twins.exchanges == 1
    assert twins.entries == sum(8 * linear.rows for linear in decoder)
    for linear in decoder:
        half = order.costs(linear, sums[linear.key], counts[linear.key], 4)
        expected = 2 * costs[linear.key][: linear.rows // 2]  # the other device has as much
        torch.testing.assert_close(half, expected)
