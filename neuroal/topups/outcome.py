"""What a criterion is, and what it says of a candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from neuroal.pruners.budget import Allotment


class Outcome(Protocol):
    """What came of a candidate; the lower the criterion, the better.

    Not `complete`: the candidate was given up, and its criterion is at least the one that is given.
    """

    @property
    def criterion(self) -> float: ...

    @property
    def complete(self) -> bool: ...


class Criterion(Protocol):
    """Measures candidates, given as numbers of zeros; the model is left dense.

    A candidate that is sure to come to more than `bound` may be given up.
    """

    def measure(self, allotments: Mapping[str, Allotment], bound: float = math.inf) -> Outcome: ...
