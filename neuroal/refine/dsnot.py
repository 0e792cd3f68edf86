"""DSnoT: swap pruned and remaining weights of a row to reduce the error of its mean output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.gradients.weight_order import ranks_of
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.pruners.base import MaskRefiner
from neuroal.sparsity.budget import Rules


@dataclass(frozen=True)
class DSnoT(MaskRefiner):
    """Dynamic sparsity without training.

    The contribution of a weight is C_rc = W_rc·m_c, with m_c the mean over windows of Σ_tokens x_c.
    The error of a row is e_r = Σ_c C_rc over its pruned weights. While |e_r| exceeds `threshold`,
    a row swaps one pruned weight with one remaining weight, at most `max_cycle_time` times:

    - e_r > 0: regrow the pruned weight with the highest C/Var[x]^p, and prune the remaining weight
      with C < 0 that has the lowest Wanda score;
    - e_r < 0: regrow the pruned weight with the lowest C/Var[x]^p, and prune the remaining weight
      with C > 0 that has the lowest Wanda score.

    A row stops when it has no candidate of the required sign left. Under ``rules=reference`` it
    continues with candidates of the opposite sign, which increases the error.

    Only attention linears are refined in families that name them (LLaMA, Mistral, Phi, OPT); the
    other linears keep their initial masks.

    Source: Zhang et al., 2024 (arXiv 2310.08915), section 3, and its public code.

    Args:
        max_cycle_time: maximum number of swaps per row. The authors use 50 for rows of thousands of
            columns; rows of hundreds of columns need fewer (`results/dsnot.md`).
        threshold: value of |e_r| at which a row stops.
        variance_power: p.
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

    def applies_to(self, decoder: DecoderModel, linear: PrunableLinear) -> bool:
        family = decoder.family
        if family is None or family.attention is None:
            return True
        return linear.name in family.attention

    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        if statistics.sums is None or statistics.variances is None:
            raise ValueError("DSnoT needs the sums and variances of the inputs")
        contribution = weight.float() * statistics.sums.mean(0)
        variance = statistics.variances.mean(0) ** self.variance_power
        wanda = weight.float().abs() * statistics.norm
        regrow = _TwoEnded(_regrow_order(contribution, variance, mask), mask.shape[1])
        prune = _TwoEnded(_prune_order(contribution, wanda, mask), (~mask).sum(1))
        any_sign = rules is Rules.REFERENCE
        return self._swap(contribution, mask, regrow, prune, any_sign=any_sign)

    def _swap(
        self,
        contribution: Tensor,
        mask: Tensor,
        regrow: _TwoEnded,
        prune: _TwoEnded,
        *,
        any_sign: bool,
    ) -> Tensor:
        """Return the mask after the swaps, which are computed for all rows in parallel.

        With `any_sign`, a row continues with candidates of the opposite sign.
        """
        initial, mask = mask, mask.clone()
        error = contribution.masked_fill(~mask, 0).sum(1)
        active = torch.ones_like(error, dtype=torch.bool)
        rows = torch.arange(len(mask), device=mask.device)
        for _ in range(self.max_cycle_time):
            positive = error > 0
            regrown, can_regrow = regrow.next(from_end=positive)
            pruned, can_prune = prune.next(from_end=~positive)
            gain, loss = contribution[rows, regrown], contribution[rows, pruned]
            active = active & (error.abs() > self.threshold) & can_regrow & can_prune
            if not any_sign:
                sign = torch.where(positive, 1.0, -1.0)
                active = active & initial[rows, regrown] & (sign * gain > 0) & (sign * loss < 0)
            if not bool(active.any()):
                break
            mask[rows[active], pruned[active]] = True
            mask[rows[active], regrown[active]] = False
            error = torch.where(active, error + loss - gain, error)
        return mask


def _regrow_order(contribution: Tensor, variance: Tensor, mask: Tensor) -> Tensor:
    """Return columns by ascending C/Var^p, with 0 for remaining columns: (rows, cols) indices."""
    keys = (contribution / variance).masked_fill(~mask | (contribution == 0), 0)
    return keys.sort(dim=1, stable=True).indices


def _prune_order(contribution: Tensor, wanda: Tensor, mask: Tensor) -> Tensor:
    """Return the remaining columns in the order of pruning, then the pruned columns.

    Columns with C < 0 come first, by ascending Wanda score, then those with C = 0, then those with
    C > 0 by descending score.
    """
    ranks, cols = ranks_of(wanda).long(), wanda.shape[1]
    keys = torch.where(contribution > 0, 3 * cols - ranks, ranks + cols * (contribution == 0))
    return keys.masked_fill(mask, 4 * cols).sort(dim=1).indices


class _TwoEnded:
    """One list of columns per row, read from both ends with one pointer per end.

    The lists are `order` (rows, cols), cut to `lengths` (rows,).
    """

    def __init__(self, order: Tensor, lengths: Tensor | int) -> None:
        self._order, self._lengths = order, lengths
        self._taken = torch.zeros(2, len(order), dtype=torch.int64, device=order.device)
        self._rows = torch.arange(len(order), device=order.device)

    def next(self, from_end: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next column of each row (rows,), and whether there is one (rows,) bool."""
        side = from_end.long()
        taken = self._taken[side, self._rows]
        self._taken[side, self._rows] += 1
        position = torch.where(from_end, self._lengths - 1 - taken, taken)
        column = self._order.gather(1, position.clamp(0, self._order.shape[1] - 1)[:, None])[:, 0]
        return column, taken < self._lengths
