"""Interface of sparsity allocation methods ("top-ups")."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from neuroal.pruners.base import Pruner
from neuroal.pruners.method import Method
from neuroal.pruners.settings import PruningSettings
from neuroal.search.context import AllocationContext
from neuroal.sparsity.allocation import Allocation

__all__ = ["Allocation", "AllocationContext", "RowRatios", "TopUp"]


class RowRatios(NamedTuple):
    """The parameter that makes a method assign one ratio per row.

    Attributes:
        key: the parameter with its value, such as ``topup.step=row``.
        remedy: the setting to use instead, such as ``topup.step=block``.
    """

    key: str
    remedy: str


class TopUp(Method, ABC):
    """A sparsity allocation method ("top-up"); subclasses are frozen dataclasses.

    It determines the sparsity of each linear or of each row. The fields of a subclass are its
    parameters.

    Attributes:
        searches: whether the method uses `AllocationContext.tokens`.
        shares_windows: whether `allocate` gives the right plan if all devices of a model run it
            together, each on its share of the windows (`BlockRunner` joins their statistics).
            Otherwise only the first device runs it.
        default_windows: number of search windows if ``calibration.search_windows`` is null.
        file_parameters: see `Method`.
    """

    group: ClassVar[str] = "topup"
    searches: ClassVar[bool] = False
    shares_windows: ClassVar[bool] = False
    default_windows: ClassVar[int] = 8

    def row_ratios(self, pruner: Pruner) -> RowRatios | None:
        """Return the parameter that gives plans for `pruner` one ratio per row; None: none does."""
        return None

    def check(self, settings: PruningSettings) -> None:
        """Raise `UserError` for settings that cannot be combined with the method.

        Runs before a model is loaded. `row_ratios` covers ratios per row.
        """

    def check_windows(self, windows: int, seqlen: int | None) -> None:
        """Raise `UserError` for a number or a length of search windows that the method cannot use.

        Runs before a model is loaded, where `seqlen` may still be unknown (None), and again before
        the search.
        """

    def search_passes(self, windows: int) -> float:
        """Return the approximate number of forward passes over all `windows` of the search."""
        return 1.0 if self.searches else 0.0

    def search_bytes(self, weights: float, states: float) -> float:
        """Return the approximate bytes that the search takes besides the model and a batch.

        Args:
            weights: bytes of the weights of all blocks.
            states: bytes of the hidden states of a batch, of all blocks together.
        """
        return 0.0

    def search_prunings(self, pruner: Pruner) -> int:
        """Return the approximate number of times that the search prunes the model by `pruner`."""
        return 0

    def operations_per_weight(self, cols: float) -> float:
        """Return the approximate operations per weight besides forward passes; 0: negligible.

        `cols` is the number of inputs of a linear. Estimates of time use it.
        """
        return 0.0

    def brief(self) -> TopUp:
        """Return this method with fewer repetitions, from whose time that of all follows.

        The times differ by the factor of their `search_passes`.
        """
        return self

    @abstractmethod
    def allocate(self, context: AllocationContext) -> Allocation:
        """Return the plan."""
