"""Join the input statistics of several devices, each of which has run its share of the windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroal.kernels.input_statistics import (
    InputStatistics,
    Need,
    StatisticsCollector,
    TokenSums,
)
from neuroal.models.linears import PrunableLinear
from neuroal.parallel.peers import Share


def joined_statistics(
    collector: StatisticsCollector,
    linears: Sequence[PrunableLinear],
    needs: frozenset[Need],
    share: Share,
) -> dict[str, InputStatistics]:
    """Return the statistics over the windows of all devices, by key of the linear.

    Statistics with one row per window are joined in the order of the windows and are those of one
    device. Others are sums over the tokens of a device: Gram matrices, and everything of a linear
    that on some device did not see every token once, as an expert. Sums are added in the order of
    the devices, so their last bits depend on the number of devices. A linear that no device has
    reached is missing.

    Args:
        collector: has seen the windows of this device.
        linears: all linears that may have been seen.
        needs: the statistics to join.
        share: the windows of this device.
    """
    if share.whole:
        return collector.finish()
    flags = torch.tensor([[collector.is_regular(linear.key) for linear in linears]])
    regular = dict(zip(linears, share.of_all(flags).all(0).tolist(), strict=True))
    own = collector.finish()
    joined: dict[int, InputStatistics] = {}  # linears with one input share its statistics
    by_key: dict[str, InputStatistics] = {}
    for linear in linears:
        if regular[linear]:
            inputs = own[linear.key]
            if id(inputs) not in joined:
                joined[id(inputs)] = _joined(inputs, share)
            by_key[linear.key] = joined[id(inputs)]
    others = [linear for linear in linears if not regular[linear]]
    for linear, sums in zip(others, _added(collector, others, needs, share), strict=True):
        if sums.tokens:
            by_key[linear.key] = sums.statistics(needs, share.count, readers=1)
    return {linear.key: by_key[linear.key] for linear in linears if linear.key in by_key}


def _joined(inputs: InputStatistics, share: Share) -> InputStatistics:
    tensors: dict[str, Any] = {}
    for field in dataclasses.fields(inputs):
        values = getattr(inputs, field.name)
        if field.name == "gram" and values is not None:
            (tensors["gram"],) = share.sums([values])
        elif isinstance(values, Tensor):
            tensors[field.name] = share.joined(values)
    return dataclasses.replace(inputs, memo={}, **tensors)


def _added(
    collector: StatisticsCollector,
    linears: Sequence[PrunableLinear],
    needs: frozenset[Need],
    share: Share,
) -> list[TokenSums]:
    """Return the sums over the tokens of all devices, for each of `linears`."""
    if not linears:
        return []
    own = [collector.token_sums(linear.key) or _empty(linear, needs) for linear in linears]
    cols = [linear.cols for linear in linears]
    tokens = torch.tensor([sums.tokens for sums in own])
    rows = [_row([part.squares for part in own])]
    if needs & {Need.SUM, Need.VARIANCE}:
        rows.append(_row([part.sums for part in own if part.sums is not None]))
    grams = [part.gram for part in own if part.gram is not None]
    counts, *added = share.sums([tokens, *rows, *grams])
    squares = added[0].split(cols)
    sums: Sequence[Tensor | None] = added[1].split(cols) if len(rows) > 1 else [None] * len(own)
    of_all: Sequence[Tensor | None] = added[len(rows) :] or [None] * len(own)
    parts = zip(counts.tolist(), squares, sums, of_all, strict=True)
    return [TokenSums(*each) for each in parts]


def _row(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.double() for part in parts])


def _empty(linear: PrunableLinear, needs: frozenset[Need]) -> TokenSums:
    """Return the sums of a linear that saw no token."""
    zeros = torch.zeros(linear.cols, device=linear.weight.device)
    sums = zeros if needs & {Need.SUM, Need.VARIANCE} else None
    gram = zeros.new_zeros(linear.cols, linear.cols) if Need.GRAM in needs else None
    return TokenSums(0, zeros, sums, gram)
