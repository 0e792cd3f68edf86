"""N:M patterns: N of every M consecutive weights of a row remain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.kernels.selection import Groups, lowest_per_row

MOST_PAIRED = 8
"""Largest group in which all pairs are compared; larger ones are sorted."""


@dataclass(frozen=True)
class Pattern:
    """An N:M pattern: `keep` weights remain in every group of `of` consecutive columns of a row.

    If `of` does not divide the number of columns, the last group of r columns keeps
    round(keep·r/of) weights.
    """

    keep: int
    of: int

    def remaining(self, cols: int) -> int:
        """Return the number of weights that remain in a row of `cols` columns."""
        return cols // self.of * self.keep + self._remaining_in_last(cols % self.of)

    def _remaining_in_last(self, cols: int) -> int:
        return (2 * self.keep * cols + self.of) // (2 * self.of)

    def lowest(self, scores: Tensor) -> Tensor:
        """Return the mask of the lowest `scores` (rows, cols) of every group of every row.

        Of equal scores, the lower column is pruned first.
        """
        rows, cols = scores.shape
        whole = cols - cols % self.of
        mask = torch.zeros_like(scores, dtype=torch.bool)
        if whole:
            groups = scores[:, :whole].reshape(-1, self.of)
            mask[:, :whole] = _lowest_of_each(groups, self.of - self.keep).view(rows, whole)
        if whole < cols:
            zeros = cols - whole - self._remaining_in_last(cols - whole)
            mask[:, whole:] = lowest_per_row(scores[:, whole:], torch.full((rows,), zeros))
        return mask

    def groups(self, cols: int) -> Groups:
        """Return the zeros of the groups of `cols` columns."""
        last = cols % self.of
        return Groups(self.of, self.of - self.keep, last - self._remaining_in_last(last))

    def holds(self, mask: Tensor) -> Tensor:
        """Return whether every group of every row of `mask` (rows, cols) has its zeros: () bool."""
        rows, cols = mask.shape
        last = cols % self.of
        groups = mask[:, : cols - last].reshape(rows, -1, self.of).sum(2)
        zeros_of_last = last - self._remaining_in_last(last)
        holds = (groups == self.of - self.keep).all()
        return holds & (mask[:, cols - last :].sum(1) == zeros_of_last).all()


def _lowest_of_each(groups: Tensor, count: int) -> Tensor:
    """Return the mask of the `count` lowest entries of each of many short rows, (rows, cols).

    Equal to `lowest_per_row`. Comparing all pairs of columns is faster than sorting short rows.
    """
    cols = groups.shape[1]
    if cols > MOST_PAIRED:
        return lowest_per_row(groups, torch.full((len(groups),), count))
    columns = groups.T.contiguous()
    ranks = torch.zeros_like(columns, dtype=torch.uint8)
    for second in range(cols):
        for first in range(second):
            in_order = columns[first] <= columns[second]
            ranks[second] += in_order
            ranks[first] += ~in_order
    return (ranks < count).T.contiguous()


def nearest_patterns(
    densities: Mapping[str, float],
    shapes: Mapping[str, tuple[int, int]],
    units: Mapping[str, int],
    of: int,
    remaining: int,
) -> dict[str, Pattern]:
    """Return one pattern N:`of` per unit (block) such that about `remaining` weights remain.

    Linears of one unit with different densities form separate units. The order of the units is
    that of `shapes`, the model's own.

    N is first the unit's density times `of`, rounded down, and at least 1. Then, in descending
    order of the fraction lost by rounding (the first on ties), a unit's N is raised by 1 if this
    brings the total closer to `remaining`. If all units have the same size, no choice between the
    two roundings brings the total closer.
    """
    members: dict[tuple[int, float], list[str]] = {}
    for key in shapes:
        members.setdefault((units[key], densities[key]), []).append(key)
    keeps = {unit: min(of, max(1, int(unit[1] * of))) for unit in members}

    def size(unit: tuple[int, float]) -> int:
        pattern = Pattern(keeps[unit], of)
        return sum(shapes[key][0] * pattern.remaining(shapes[key][1]) for key in members[unit])

    total = sum(size(unit) for unit in members)
    for unit in sorted(members, key=lambda unit: keeps[unit] - unit[1] * of):
        if keeps[unit] == of:
            continue
        before = size(unit)
        keeps[unit] += 1
        changed = total - before + size(unit)
        if abs(changed - remaining) < abs(total - remaining):
            total = changed
        else:
            keeps[unit] -= 1
    return {key: Pattern(keeps[unit], of) for unit in members for key in members[unit]}
