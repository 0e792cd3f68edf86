"""Statistics of inputs do not depend on how windows are batched, to the last bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics, Need, StatisticsCollector

STATISTICS = ("square_sums", "sums", "variances", "gram")


def collected(x: Tensor, batch: int) -> InputStatistics:
    collector = StatisticsCollector(frozenset(Need))
    for part in x.split(batch):
        collector.start_batch(*part.shape[:2])
        collector.see("q", part)
        collector.see("k", part)
    statistics = collector.finish()
    assert statistics["q"] is statistics["k"]
    return statistics["q"]


@settings(max_examples=25, deadline=None)
@given(
    windows=st.integers(1, 6),
    tokens=st.integers(2, 40),
    cols=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    swapped=st.booleans(),
)
def test_batches_do_not_change_statistics(
    windows: int, tokens: int, cols: int, dtype: torch.dtype, swapped: bool
) -> None:
    generator = torch.Generator().manual_seed(windows)
    x = torch.randn(windows, tokens, cols, generator=generator).to(dtype)
    if swapped:  # as a model that puts tokens before windows passes it
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    expected = collected(x, 1)
    for batch in range(2, windows + 1):
        statistics = collected(x, batch)
        for name in STATISTICS:
            assert torch.equal(getattr(statistics, name), getattr(expected, name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_those_of_float64(dtype: torch.dtype) -> None:
    x = torch.randn(5, 30, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    statistics, exact = collected(x, 2), x.double()
    flat = exact.flatten(0, 1)
    torch.testing.assert_close(statistics.square_sums, exact.square().sum(1).float())
    torch.testing.assert_close(statistics.sums, exact.sum(1).float())
    torch.testing.assert_close(statistics.variances, exact.var(1, correction=0).float())
    torch.testing.assert_close(statistics.gram, (flat.T @ flat).float(), rtol=1e-5, atol=1e-4)


def test_inputs_of_any_number_of_tokens_are_collected() -> None:
    """An expert sees some tokens, maybe none; a linear may be called twice in a batch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=generator) + 1
    y = torch.randn(2, 3, 5, generator=generator)
    collector = StatisticsCollector(frozenset(Need))
    for part in (x[:3], x[3:3], x[3:]):
        collector.start_batch(2, 3)
        collector.see("expert", part)
        collector.see("empty", part[:0])
        collector.see("twice", y)
        collector.see("twice", part)
    statistics = collector.finish()
    assert set(statistics) == {"expert", "twice"}
    for key, tokens in (("expert", x), ("twice", torch.cat([x, *3 * [y.flatten(0, 1)]]))):
        inputs = statistics[key]
        assert inputs.tokens == len(tokens)
        assert inputs.windows == 6
        assert inputs.sums is not None
        torch.testing.assert_close(inputs.square_sums.sum(0), tokens.square().sum(0))
        torch.testing.assert_close(inputs.sums.sum(0), tokens.sum(0))
        torch.testing.assert_close(inputs.variances[0], tokens.var(0, correction=0))
        torch.testing.assert_close(inputs.gram, tokens.T @ tokens)


def test_statistics_count_the_linears_that_read_an_input() -> None:
    collector = StatisticsCollector(frozenset())
    for _ in range(2):
        collector.start_batch(1, 3)
        hidden, inner = torch.rand(1, 3, 4), torch.rand(1, 3, 5)
        for key, x in (("q", hidden), ("k", hidden), ("v", hidden), ("down", inner)):
            collector.see(key, x)
    readers = {key: statistics.readers for key, statistics in collector.finish().items()}
    assert readers == {"q": 3, "k": 3, "v": 3, "down": 1}
