"""Presets of equal marginals: settings that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Preset:
    """Values of the parameters of `EqualMarginals` that are None.

    Attributes:
        start: ``fisher`` or ``uniform``.
        step: ``linear``, ``row`` or ``both``.
        alone: iterations for linears, or for rows, if only these are changed.
        both: iterations for linears and for the rows that follow.
        momentum: weight of earlier iterations in the running mean of the costs.
        second_order: weight of the second-order term.
        prunings: number of prunings by a pruner that updates weights in the iterations of a step.
    """

    start: str
    step: str
    alone: tuple[int, int]
    both: tuple[int, int]
    momentum: float
    second_order: float
    prunings: int

    def interval(self, iterations: int) -> int:
        """Return the number of iterations between two of these prunings; 0: there are none."""
        return -(-iterations // self.prunings) if self.prunings else 0

    def iterations(self, step: str) -> tuple[int, int]:
        """Return the numbers of iterations for linears and for rows."""
        if step == "both":
            return self.both
        return (self.alone[0], 0) if step == "linear" else (0, self.alone[1])


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "fast": Preset("fisher", "row", (16, 16), (5, 16), 0.5, 1.0, 4),
        "default": Preset("fisher", "row", (48, 48), (20, 48), 0.5, 1.0, 4),
        "best": Preset("fisher", "row", (96, 96), (40, 96), 0.5, 1.0, 4),
        "first": Preset("uniform", "both", (40, 80), (25, 60), 0.8, 0.0, 0),
    }
)
"""``first`` has the settings of version 0.1."""
