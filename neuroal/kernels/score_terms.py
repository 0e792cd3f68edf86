"""The terms of scores that are compared over a whole model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ScoreTerms:
    """The terms of the scores of one linear: W²·entries, or else |W|·cols·rows.

    Attributes:
        entries: (rows, cols) bfloat16, at least 0; None: `rows` and `cols` are used.
        rows: (rows,) float32, at least 0.
        cols: (cols,) float32, at least 0.
    """

    entries: Tensor | None = None
    rows: Tensor | None = None
    cols: Tensor | None = None

    def scores(self, weight: Tensor) -> Tensor:
        """Return the scores of `weight` (rows, cols) in float32, multiplied in a fixed order."""
        weight = weight.float()
        if self.entries is not None:
            return (weight * weight).mul_(self.entries.float())
        assert self.rows is not None
        assert self.cols is not None
        return weight.abs().mul_(self.cols).mul_(self.rows[:, None])
