"""DSnoT: swap pruned and kept weights of a row until its expected output is what it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.budget import Rules
from neuroal.refine.base import Refine
from neuroal.statistics import InputStatistics, Need


@dataclass(frozen=True)
class DSnoT(Refine):
    """Dynamic sparsity without training.

    The contribution of a weight is C_rc = W_rc·m_c, with m_c the mean over windows of
    Σ_tokens x_c; the error of a row is e_r = Σ C of its pruned weights. While |e_r| exceeds
    `threshold` a row swaps one weight against another, at most `max_cycle_time` times:

    - e_r > 0: the pruned weight of greatest C/Var[x]^p comes back, and of the kept weights with
      C < 0 the one of lowest Wanda score goes;
    - e_r < 0: the pruned weight of least C/Var[x]^p comes back, and of the kept weights with
      C > 0 the one of lowest Wanda score goes.

    A row whose candidates of the wanted sign are used up stops. Under ``rules=reference`` it
    walks on into those of the other sign, which raises the error that the swap should lower.

    Linears that the model's family does not name as refined keep their mask (LLaMA, Mistral, Phi:
    the MLP; OPT: everything but attention).

    Source: Zhang et al., 2024 (arXiv 2310.08915), section 3, and its public code.

    Args:
        max_cycle_time: most swaps of one row; 50 are the authors' for rows of thousands of columns,
            rows of hundreds are better off with fewer (`results/dsnot.md`).
        threshold: |e_r| at which a row is done.
        variance_power: p.

    Sample YAML::

        _target_: neuroal.refine.dsnot.DSnoT
        max_cycle_time: 50
        threshold: 0.1
        variance_power: 1.0
    """

    max_cycle_time: int = 50
    threshold: float = 0.1
    variance_power: float = 1.0

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM, Need.SUM, Need.VARIANCE})

    def __post_init__(self) -> None:
        if self.max_cycle_time < 1:
            raise UserError(f"refine.max_cycle_time={self.max_cycle_time}: must be at least 1")
        if self.threshold < 0:
            raise UserError(f"refine.threshold={self.threshold}: must not be negative")
        if self.variance_power < 0:
            raise UserError(f"refine.variance_power={self.variance_power}: must not be negative")

    def applies_to(self, subject: DecoderModel, linear: PrunableLinear) -> bool:
        return subject.refines(linear)

    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        if statistics.sums is None or statistics.variances is None:
            raise ValueError("DSnoT needs the inputs' sums and variances")
        contribution = weight.float() * statistics.sums.mean(0)
        variance = statistics.variances.mean(0) ** self.variance_power
        regrow = _Ends.of(_regrow_order(contribution, variance, mask), None)
        prune = _Ends.of(
            _prune_order(contribution, weight.float().abs() * statistics.norm, mask),
            (~mask).sum(1),
        )
        return self._swap(contribution, mask, regrow, prune, walks_on=rules is Rules.REFERENCE)

    def _swap(
        self, contribution: Tensor, mask: Tensor, regrow: _Ends, prune: _Ends, *, walks_on: bool
    ) -> Tensor:
        """Swap row by row, all rows at once."""
        initial, mask = mask, mask.clone()
        error = contribution.masked_fill(~mask, 0).sum(1)
        active = torch.ones_like(error, dtype=torch.bool)
        rows = torch.arange(len(mask), device=mask.device)
        for _ in range(self.max_cycle_time):
            positive = error > 0
            back, back_left = regrow.next(from_end=positive)
            gone, gone_left = prune.next(from_end=~positive)
            gain, loss = contribution[rows, back], contribution[rows, gone]
            active = active & (error.abs() > self.threshold) & back_left & gone_left
            if not walks_on:
                sign = torch.where(positive, 1.0, -1.0)
                active = active & initial[rows, back] & (sign * gain > 0) & (sign * loss < 0)
            if not bool(active.any()):
                break
            mask[rows[active], gone[active]] = True
            mask[rows[active], back[active]] = False
            error = torch.where(active, error + loss - gain, error)
        return mask


def _regrow_order(contribution: Tensor, variance: Tensor, mask: Tensor) -> Tensor:
    """All columns by ascending C/Var^p, a kept column counting as 0: (rows, cols) indices."""
    keys = (contribution / variance).masked_fill(~mask | (contribution == 0), 0)
    return keys.sort(dim=1, stable=True).indices


def _prune_order(contribution: Tensor, wanda: Tensor, mask: Tensor) -> Tensor:
    """Kept columns: C < 0 by ascending Wanda score, C = 0, C > 0 by descending; then the pruned."""
    ascending = wanda.sort(dim=1, stable=True).indices
    rank = torch.empty_like(ascending)
    cols = wanda.shape[1]
    places = torch.arange(cols, device=wanda.device).expand_as(ascending)
    rank.scatter_(1, ascending, places)
    keys = torch.where(contribution > 0, 3 * cols - rank, rank + cols * (contribution == 0))
    return keys.masked_fill(mask, 4 * cols).sort(dim=1).indices


class _Ends:
    """A list of columns for each row that is read from both ends, each with its own pointer."""

    def __init__(self, order: Tensor, lengths: Tensor) -> None:
        self._order, self._lengths = order, lengths
        self._taken = torch.zeros(2, len(order), dtype=torch.int64, device=order.device)
        self._rows = torch.arange(len(order), device=order.device)

    @classmethod
    def of(cls, order: Tensor, lengths: Tensor | None) -> _Ends:
        """Lists `order` (rows, cols), of which the first `lengths` (rows,) count; None: all."""
        return cls(
            order, torch.full_like(order[:, 0], order.shape[1]) if lengths is None else lengths
        )

    def next(self, from_end: Tensor) -> tuple[Tensor, Tensor]:
        """The next column of each row (rows,), and whether there was one (rows,) bool."""
        side = from_end.long()
        taken = self._taken[side, self._rows]
        self._taken[side, self._rows] += 1
        place = torch.where(from_end, self._lengths - 1 - taken, taken)
        column = self._order.gather(1, place.clamp(0, self._order.shape[1] - 1)[:, None])[:, 0]
        return column, taken < self._lengths
