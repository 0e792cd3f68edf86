"""Statistics of linears that do not see every token: experts, and linears that are never called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import PrunableLinear
from neuroal.models.families import pattern_of

EXAMPLES = 3
"""Linears that a report names."""


def completed(
    linears: Sequence[PrunableLinear],
    statistics: Mapping[str, InputStatistics],
    needs: frozenset[Need],
    windows: int,
) -> dict[str, InputStatistics]:
    """Return statistics of all `linears` of a block, filled up where too few tokens were seen.

    If n tokens of a linear with more columns than that were seen, the statistics continue as if
    the missing cols − n tokens had the same energy in each column, no correlation and the mean 0:
    that of its siblings' tokens, which are the linears of the same name up to numbers. Without
    any token, scores therefore order the weights by magnitude.
    """
    if all(key in statistics and statistics[key].tokens is None for key in _keys(linears)):
        return dict(statistics)
    energies = _energies(linears, statistics)
    filled: dict[str, InputStatistics] = {}
    for linear in linears:
        inputs = statistics.get(linear.key)
        if inputs is None or (inputs.tokens is not None and inputs.tokens < linear.cols):
            energy = energies.get(pattern_of(linear.name))
            inputs = _filled(linear, inputs, energy, needs, windows)
        filled[linear.key] = inputs
    return filled


def under_reached(
    linears: Sequence[PrunableLinear], statistics: Mapping[str, InputStatistics]
) -> str | None:
    """Describe in one line the linears of a block that saw fewer tokens than they have columns."""
    few = {
        linear: statistics[linear.key].tokens or 0
        for linear in linears
        if linear.key in statistics and statistics[linear.key].filled
    }
    if not few:
        return None
    fewest = sorted(few, key=lambda linear: few[linear])[:EXAMPLES]
    examples = ", ".join(f"{lin.name} {few[lin]} of {lin.cols}" for lin in fewest)
    return (
        f"block {linears[0].block}: {len(few)} of {len(linears)} linears saw fewer calibration "
        f"tokens than they have columns ({examples}); their statistics are filled up evenly, so "
        "that weights without tokens are pruned by magnitude; more calibration.windows may help"
    )


def _keys(linears: Sequence[PrunableLinear]) -> list[str]:
    return [linear.key for linear in linears]


def _energies(
    linears: Sequence[PrunableLinear], statistics: Mapping[str, InputStatistics]
) -> dict[str, Tensor]:
    """Return the mean of x² over tokens and columns of siblings, () float32, by their pattern."""
    sums: defaultdict[str, list[Tensor]] = defaultdict(list)
    entries: defaultdict[str, int] = defaultdict(int)
    for linear in linears:
        inputs = statistics.get(linear.key)
        if inputs is not None and inputs.tokens:
            sums[pattern_of(linear.name)].append(inputs.square_sums.sum())
            entries[pattern_of(linear.name)] += inputs.tokens * linear.cols
    return {name: torch.stack(parts).sum() / entries[name] for name, parts in sums.items()}


def _filled(
    linear: PrunableLinear,
    inputs: InputStatistics | None,
    energy: Tensor | None,
    needs: frozenset[Need],
    windows: int,
) -> InputStatistics:
    """Return `inputs` with cols − n more tokens, of the mean square `energy` in all columns."""
    device, cols = linear.weight.device, linear.cols
    if energy is None:
        energy = torch.ones((), device=device)
    if inputs is None:
        zeros = torch.zeros(windows, cols, device=device)
        gram = torch.zeros(cols, cols, device=device) if Need.GRAM in needs else None
        inputs = InputStatistics(
            zeros,
            zeros if Need.SUM in needs else None,
            zeros if Need.VARIANCE in needs else None,
            gram,
            0,
        )
    tokens = inputs.tokens or 0
    missing = cols - tokens
    gram, variances = inputs.gram, inputs.variances
    if gram is not None:
        gram = gram + torch.diag((missing * energy).expand(cols))
    if variances is not None:
        variances = (tokens * variances + missing * energy) / cols
    return replace(
        inputs,
        square_sums=inputs.square_sums + missing * energy / windows,
        variances=variances,
        gram=gram,
        filled=True,
        readers=1,
        memo={},
    )
