"""Zeros of every row by the Fisher information of the weights, in a few passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import BlockPass, Sums, repeatable, walk_back
from neuroal.gradients.by_linear import ByLinear
from neuroal.gradients.head import Chunk, output_gradients
from neuroal.gradients.information import (
    Information,
    completed,
    elementwise,
    factored,
    reduction,
)
from neuroal.gradients.row_costs import costs_by_band, zeros_by_cost
from neuroal.gradients.row_sparsity import HIGHEST
from neuroal.gradients.threshold import Threshold, lowest_of_model
from neuroal.gradients.weight_order import WeightOrder
from neuroal.kernels.score_terms import ScoreTerms
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.models.weights import swapped_weights
from neuroal.parallel.peers import Share
from neuroal.sparsity.budget import total_zeros
from neuroal.sparsity.plan import Ratio, SparsityPlan
from neuroal.tracking.progress import Step

PAST = 0.5
"""Weight of earlier rounds in the running mean of the information."""


@dataclass(frozen=True)
class FisherSettings:
    """Parameters of an allocation by Fisher information; see `neuroal.topups.fisher.Fisher`."""

    rounds: int = 4
    form: str = "elementwise"
    exponent: float = 1.0
    skip: int = 8

    def zeros(self, total: int) -> list[int]:
        """Return K_t = K·(1 − (1 − t/T)³) for t = 1 … T: coarse steps first, then fine ones."""
        shares = [1 - (1 - t / self.rounds) ** 3 for t in range(1, self.rounds + 1)]
        return [*(int(total * share + 0.5) for share in shares[:-1]), total]


@dataclass(eq=False)
class FisherRounds:
    """Rounds that measure the information on some windows and zero the cheapest weights.

    Attributes:
        runner: holds the dense model; its windows are replaced by those of a round.
        tokens: all windows (windows, seqlen).
        batch: windows in one forward pass.
        labels: labels (seqlen,) by index of a window.
        information: F of every linear, by key, as a running mean over the rounds.
        threshold: the lowest scores after the latest round; None before the first.
        losses: mean over tokens of −log p_sparse(y), in every round.
    """

    settings: FisherSettings
    runner: BlockRunner
    tokens: Tensor
    batch: int
    labels: Mapping[int, Tensor]
    information: dict[str, Information] = field(default_factory=dict)
    threshold: Threshold | None = None
    losses: list[float] = field(default_factory=list)

    @property
    def _decoder(self) -> DecoderModel:
        return self.runner.decoder

    def run(self, minibatches: Sequence[list[int]], zeros: int, step: Step) -> None:
        """Run one round on each minibatch; the last one ends with `zeros` zeros in the model."""
        for windows, count in zip(minibatches, self.settings.zeros(zeros), strict=True):
            with repeatable(self._decoder.device):
                loss = self.measure(windows)
            self.threshold = lowest_of_model(self._decoder, self.terms, count)
            self.losses.append(loss)
            step.advance(1, loss=loss)

    def measure(self, windows: Sequence[int]) -> float:
        """Update the information on `windows` under the present mask; return the mean loss.

        Raises:
            UserError: a gradient overflowed.
        """
        runner = self.runner.on(self.tokens[list(windows)], self.batch)
        share = runner.share
        own = [windows[index] for index in share.windows]
        hidden, inputs = runner.embedded, []
        for index, linears in self._decoder.walk():
            inputs.append(hidden)
            with swapped_weights(linears, self.masked(linears)):
                hidden = runner.run(index, hidden)
        total, upstream = output_gradients(runner, hidden, own, self._loss)
        del hidden
        sums_of = reduction(self.settings.form, self.settings.skip)
        checks, sums = list[Tensor](), Sums()
        for index, linears in self._decoder.walk(backwards=True):
            forward = BlockPass(inputs.pop())
            with swapped_weights(linears, self.masked(linears)):
                block_sums, upstream = walk_back(runner, index, forward, upstream, sums_of)
            sums |= completed(block_sums, linears, self.settings.form)
            # The factors of all blocks are exchanged at once. Of entries, only one block has room.
            if sums and (self.settings.form == "elementwise" or index == 0):
                checks.append(self._learn(sums, share, len(windows)))
                sums = {}
        if not bool(torch.stack(checks).all()):
            raise UserError(
                "topup: the gradients of the output are not finite; use model.dtype=bfloat16 "
                "or float32"
            )
        return share.total(float(total)) / (len(windows) * self.tokens.shape[1])

    def _learn(self, sums: Sums, share: Share, windows: int) -> Tensor:
        """Update the running means by sums of this device; return whether those of all are finite.

        The means are kept on the host if idle blocks are offloaded.
        """
        tokens = windows * (self.tokens.shape[1] - self.settings.skip)
        offloads = self._decoder.placement.offloads
        self._decoder.peers.meet()
        if self.settings.form == "elementwise":
            measured, finite = elementwise(sums, tokens, share)
        else:
            measured, finite = factored(sums, tokens, share, self.settings.exponent)
        for key, latest in measured.items():
            mean = latest.joined(self._of(key), PAST) if key in self.information else latest
            self.information[key] = mean.to(torch.device("cpu")) if offloads else mean
        return finite

    def terms(self, linear: PrunableLinear) -> ScoreTerms:
        """Return the terms of the scores of `linear`, which order its weights by W²·F̄."""
        return self._of(linear.key).terms()

    def masked(self, linears: Sequence[PrunableLinear]) -> dict[str, Tensor]:
        """Return the weights of `linears` under the present mask, by key."""
        if self.threshold is None:
            return {linear.key: linear.weight for linear in linears}
        threshold = self.threshold
        return {linear.key: threshold.zeroed(linear, self.terms(linear)) for linear in linears}

    def plan(self, sparsity: float, by_row: bool, order: WeightOrder | None = None) -> SparsityPlan:
        """Return the zeros of the present mask as one ratio per row, or one per linear.

        With an `order`, return those of the mask that is cheapest by W²·F̄ if the weights of a row
        are pruned in this order.
        """
        zeros = self._zeros_in_mask() if order is None else self._zeros_in_order(order, sparsity)
        flat = torch.cat([zeros[linear.key] for linear in self._decoder]).double().cpu()
        parts = flat.split([linear.rows for linear in self._decoder])
        ratios: dict[str, Ratio] = {}
        for linear, part in zip(self._decoder, parts, strict=True):
            rows = part / linear.cols
            ratios[linear.key] = rows.clamp(max=HIGHEST) if by_row else float(rows.mean())
        return SparsityPlan(ratios, sparsity)

    def _zeros_in_mask(self) -> dict[str, Tensor]:
        threshold = self.threshold
        assert threshold is not None
        return ByLinear(self._decoder).counts(
            lambda linear: threshold.mask(linear, self.terms(linear)).sum(1),
            lambda linear: linear.rows,
        )

    def _zeros_in_order(self, order: WeightOrder, sparsity: float) -> dict[str, Tensor]:
        costs, peers = dict[str, Tensor](), self._decoder.peers
        for _, linears in self._decoder.walk():
            peers.meet()
            for linear in linears:
                own = peers.rows(linear.rows)
                single = linear.weight[own].float().square() * self.values(linear)[own]
                by_band = costs_by_band(single, order.ranks(linear)[own])
                (costs[linear.key],) = peers.joined_rows([by_band], [linear.rows])
        cols = {linear.key: linear.cols for linear in self._decoder}
        return zeros_by_cost(costs, cols, total_zeros(sparsity, self._decoder.numel))

    def values(self, linear: PrunableLinear) -> Tensor:
        """Return F̄ of `linear`: (rows, cols) float32."""
        return self._of(linear.key).values()

    def _loss(self, logits: Tensor, chunk: Chunk) -> Tensor:
        """Return the sum of −log p_sparse(y) over the tokens of a chunk."""
        labels = torch.stack([self.labels[w][chunk.positions] for w in chunk.windows])
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten().to(logits.device), reduction="sum"
        )

    def _of(self, key: str) -> Information:
        mean, offloads = self.information[key], self._decoder.placement.offloads
        return mean.to(self._decoder.device) if offloads else mean
