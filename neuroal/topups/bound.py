"""When a candidate need not be measured to its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """Excludes candidates whose criterion, a sum over blocks, has grown too far.

    Attributes:
        value: the criterion to be beaten.
        rest: by how much the criterion is expected to grow after each block, at the least. Empty:
            by nothing, so that a candidate that is excluded is sure to have lost.
    """

    value: float = math.inf
    rest: Sequence[float] = ()

    def excludes(self, block: int, criterion: float) -> bool:
        """Whether a candidate has lost that stands at `criterion` after `block`."""
        return criterion + (self.rest[block] if self.rest else 0.0) > self.value


UNBOUNDED = Bound()
