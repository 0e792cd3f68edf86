"""What a criterion is, and when it need not measure a candidate to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from neuroal.pruners.budget import Allotment


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


class Outcome(Protocol):
    """What came of a candidate; the lower the criterion, the better.

    Not `complete`: the candidate was given up, and its criterion is at least the one that is given.
    `growth`: the criterion after each block, where it is a sum over blocks.
    """

    @property
    def criterion(self) -> float: ...

    @property
    def complete(self) -> bool: ...

    @property
    def growth(self) -> Sequence[float]: ...


class Criterion(Protocol):
    """Measures candidates, given as numbers of zeros; the model is left dense.

    One that `bound` excludes may be given up.
    """

    def measure(self, allotments: Mapping[str, Allotment], bound: Bound = UNBOUNDED) -> Outcome: ...
