"""Fisher allocation: zero the weights of the whole model that cost its output least."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from neuroal.errors import UserError, check_choice
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.fisher import FisherRounds, FisherSettings
from neuroal.gradients.information import FORMS
from neuroal.gradients.labels import draw_labels
from neuroal.gradients.row_sparsity import duration, shuffled
from neuroal.gradients.weight_order import WeightOrder
from neuroal.pruners.base import Pruner, ScorePruner
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import total_zeros
from neuroal.topups.base import Allocation, AllocationContext, RowRatios, TopUp

STEPS = ("row", "linear")
PASSES = 5.0
"""Cost of a round, with its labels, in forward passes over its windows."""
EXPONENT = 0.7
"""Default of p: the best on the models that were tried."""


def ordered(pruner: Pruner) -> bool:
    """Return whether `pruner` orders the weights of a row by scores, and not as Wanda does.

    Wanda's order is nearly that of w²·F̄. A pruner without scores (SparseGPT) has no order.
    """
    return isinstance(pruner, ScorePruner) and type(pruner) is not Wanda


@dataclass(frozen=True)
class Fisher(TopUp):
    """Give every row the zeros that the cheapest weights of the whole model would take in it.

    Near a model whose output gradient vanishes, zeroing a weight costs ½·w²·F to second order, with
    the Fisher information F = E[(∂ log p(y)/∂w)²] and y drawn from the dense model's prediction.
    Round t of T measures F_t on the next windows, in the model pruned so far, from the inputs x and
    the output gradients δ of all linears, and averages it with the past::

        F_t = mean over tokens of δ_r²·x_c²  (elementwise), or (mean δ_r²)^p·(mean x_c²)  (factored)
        F̄_1 = F_1,  F̄_t = ½·F̄_{t−1} + ½·F_t

    Then the K_t = K·(1 − (1 − t/T)³) weights of the model with the lowest w²·F̄ are zeroed, always
    from the dense weights. The plan has the zeros of each row in the last mask, at most 0.99 of the
    row. Which weights of a row are pruned in the end is up to the pruner. If its order is known and
    differs much from that of w²·F̄ (`ordered`), the plan has the zeros of the cheapest mask whose
    rows are pruned in its order (`neuroal.gradients.row_costs`).

    Source: this project.

    Args:
        rounds: T.
        windows: windows of one round, drawn from the search windows in shuffled passes.
        form: ``elementwise``, or ``factored``, which stores one number per row and per column.
        exponent: p, for ``factored`` only; None: 0.7.
        skip: leading positions of every window to leave out of the means, since first tokens have
            large inputs and hardly any gradient.
        step: ``row`` (one sparsity per row), or ``linear``, for N:M patterns.
    """

    rounds: int = 4
    windows: int = 8
    form: str = "factored"
    exponent: float | None = None
    skip: int = 8
    step: str = "row"

    version: ClassVar[int] = 3
    searches: ClassVar[bool] = True
    shares_windows: ClassVar[bool] = True
    default_windows: ClassVar[int] = 64

    def __post_init__(self) -> None:
        check_choice("topup.form", self.form, FORMS)
        check_choice("topup.step", self.step, STEPS)
        for key in ("rounds", "windows"):
            if getattr(self, key) < 1:
                raise UserError(f"topup.{key}={getattr(self, key)}: must be at least 1")
        if self.skip < 0:
            raise UserError(f"topup.skip={self.skip}: must not be negative")
        if self.exponent is not None and self.form != "factored":
            raise UserError(
                f"topup.exponent={self.exponent}: topup.form={self.form} has no exponent; use "
                "topup.form=factored, or topup.exponent=null"
            )
        if self.exponent is not None and not 0 <= self.exponent <= 4:
            raise UserError(f"topup.exponent={self.exponent}: must be at least 0 and at most 4")

    def row_ratios(self, pruner: Pruner) -> RowRatios | None:
        return RowRatios("topup.step=row", "topup.step=linear") if self.step == "row" else None

    def check_windows(self, windows: int, seqlen: int | None) -> None:
        if windows < self.windows:
            raise UserError(
                f"topup.windows={self.windows}: a round takes more windows than the search has; "
                f"use calibration.search_windows={self.windows} or more, or topup.windows={windows}"
            )
        if seqlen is not None and self.skip >= seqlen:
            raise UserError(
                f"topup.skip={self.skip}: leaves no token of a window of {seqlen}; use a longer "
                f"calibration.seqlen, or topup.skip={seqlen // 2} or less"
            )

    def search_passes(self, windows: int) -> float:
        return PASSES * self.rounds * self.windows / windows

    def brief(self) -> Fisher:
        return dataclasses.replace(self, rounds=1)

    def search_bytes(self, weights: float, states: float) -> float:
        return states + (weights if self.form == "elementwise" else 0.0)

    @property
    def settings(self) -> FisherSettings:
        exponent = EXPONENT if self.exponent is None else self.exponent
        return FisherSettings(self.rounds, self.form, exponent, self.skip)

    def allocate(self, context: AllocationContext) -> Allocation:
        tokens, settings = context.tokens, context.settings
        self.check_windows(*tokens.shape)
        order = shuffled(len(tokens), self.windows, settings.seed)
        minibatches = [next(order) for _ in range(self.rounds)]
        rounds = self.run(context, minibatches)
        ranking = None
        if ordered(settings.pruner):
            ranking = WeightOrder(context.decoder, settings.pruner)
            batch = min(context.batch, self.windows)
            few = BlockRunner.capture(context.decoder, tokens[minibatches[0]], batch)
            ranking.compute(few, context.progress)
        report: dict[str, Any] = {
            "form": self.form,
            "zeros": self.settings.zeros(total_zeros(settings.sparsity, context.decoder.numel)),
            "loss": rounds.losses,
        }
        if self.form == "factored":
            report["exponent"] = self.settings.exponent
        plan = rounds.plan(settings.sparsity, self.step == "row", ranking)
        return Allocation(plan, report)

    def run(self, context: AllocationContext, minibatches: Sequence[list[int]]) -> FisherRounds:
        """Draw labels and run one round on each of `minibatches` (indices of search windows)."""
        decoder, settings = context.decoder, context.settings
        used = sorted({window for minibatch in minibatches for window in minibatch})
        begin = time.perf_counter()
        batch = min(context.batch, self.windows)
        runner = BlockRunner.capture(decoder, context.tokens[used], batch)
        hidden = runner.embedded
        with context.progress.stage("draw labels", len(decoder), "block") as step:
            for index, _ in decoder.walk():
                hidden = runner.run(index, hidden)
                step.advance(1)
        labels = draw_labels(runner, hidden, used, settings.seed)
        del hidden
        seconds = (time.perf_counter() - begin) * PASSES * self.rounds * self.windows / len(used)
        rounds = FisherRounds(self.settings, runner, context.tokens, batch, labels)
        name = f"Fisher information, about {duration(seconds)}"
        with context.progress.stage(name, self.rounds, "round") as step:
            rounds.run(minibatches, total_zeros(settings.sparsity, decoder.numel), step)
        return rounds
