"""N:M patterns: N weights kept in every group of M consecutive columns of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroal.pruners.masks import lowest_per_row

Shape = tuple[int, int]


@dataclass(frozen=True)
class Pattern:
    """`keep` weights stay in every group of `of` consecutive columns of a row.

    Where `of` does not divide the number of columns, the last group of r columns keeps
    round(keep·r/of) of them.
    """

    keep: int
    of: int

    def kept(self, cols: int) -> int:
        """Weights that stay in a row of `cols` columns."""
        return cols // self.of * self.keep + self._kept_last(cols % self.of)

    def _kept_last(self, cols: int) -> int:
        return (2 * self.keep * cols + self.of) // (2 * self.of)

    def lowest(self, scores: Tensor) -> Tensor:
        """Mask (rows, cols), True = pruned, of the lowest scores of every group of every row.

        Ties go to the lower column.
        """
        rows, cols = scores.shape
        whole = cols - cols % self.of
        mask = torch.zeros_like(scores, dtype=torch.bool)
        if whole:
            groups = scores[:, :whole].reshape(-1, self.of)
            found = lowest_per_row(groups, _constant(len(groups), self.of - self.keep))
            mask[:, :whole] = found.view(rows, whole)
        if whole < cols:
            zeros = cols - whole - self._kept_last(cols - whole)
            mask[:, whole:] = lowest_per_row(scores[:, whole:], _constant(rows, zeros))
        return mask


def _constant(length: int, value: int) -> Tensor:
    return torch.full((length,), value)


def nearest_patterns(
    densities: Mapping[str, float],
    shapes: Mapping[str, Shape],
    units: Mapping[str, int],
    of: int,
    kept: int,
) -> dict[str, Pattern]:
    """One pattern N:`of` for each unit (block), such that about `kept` weights stay in all.

    N is the unit's density times `of`, rounded down or up, at least 1. Up go, in the order of
    their fractions (the first on ties), those that bring the total nearer to `kept`. With units of
    one size the total is the nearest that such patterns can reach.

    Args:
        densities: of each linear.
        shapes: (rows, cols) of each linear.
        units: linear → its unit; linears of a unit that differ in density are units of their own.
        of: M.
        kept: weights that shall stay over all linears.
    """
    members: dict[tuple[int, float], list[str]] = {}
    for key, density in densities.items():
        members.setdefault((units[key], density), []).append(key)
    keeps = {unit: min(of, max(1, int(unit[1] * of))) for unit in members}

    def size(unit: tuple[int, float]) -> int:
        pattern = Pattern(keeps[unit], of)
        return sum(shapes[key][0] * pattern.kept(shapes[key][1]) for key in members[unit])

    total = sum(size(unit) for unit in members)
    for unit in sorted(members, key=lambda unit: keeps[unit] - unit[1] * of):
        if keeps[unit] == of:
            continue
        before = size(unit)
        keeps[unit] += 1
        changed = total - before + size(unit)
        if abs(changed - kept) < abs(total - kept):
            total = changed
        else:
            keeps[unit] -= 1
    return {key: Pattern(keeps[unit], of) for unit in members for key in members[unit]}
