"""How far the sparse model's output is from the dense model's, and what each row has to do with it.

One backward pass gives the gradient with respect to every weight, the zeroed ones too. It goes
block by block: what a block's gradients say about its rows is kept, the gradients are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from neuroal.blocks import BlockRunner, leaf_weights, swapped_weights
from neuroal.errors import UserError
from neuroal.head import logits_of
from neuroal.memory import free_memory
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.topups.backward import Pass, walk_back
from neuroal.topups.ranks import Counts, Ranks

LOGIT_BYTES = {"cuda": 2**28, "cpu": 2**25}
"""Float32 logits in one piece; about six such pieces are alive at once."""
SHARE = 0.3
"""Share of the free memory that graphs may take; those of the other blocks are made twice."""
TENSORS_OF_GRAPH = 3
"""Tensors that a graph keeps for every output of a linear, roughly."""
LEAST_SCALE = 2.0**-24


@dataclass(frozen=True)
class Band:
    """The weights of a row that are looked at: those about to go and those about to come back.

    Attributes:
        share: half-width w as a share of the columns.
        least: of w.
    """

    share: float = 0.1
    least: int = 4

    def width(self, cols: int) -> int:
        """w = max(least, share·cols)."""
        return max(self.least, int(self.share * cols))


@dataclass(frozen=True, eq=False)
class Margins:
    """What one more zero in a row would cost.

    Attributes:
        value: of the objective.
        costs: mean over the band of what the objective gains if that weight is zeroed, to first
            order −G·W: of each linear, by key, (rows,) float32.
    """

    value: float
    costs: Mapping[str, Tensor]


class Objective(Protocol):
    """What an allocation is judged by, on minibatches of windows given by their indices."""

    def margins(self, counts: Counts, windows: Sequence[int]) -> Margins: ...


class OutputDivergence:
    """D = mean over tokens of KL(p_dense ‖ p_sparse); or the cross-entropy of the text itself.

    Args:
        runner: of the dense model, on any windows.
        ranks: which weights of a row go first.
        tokens: all windows (windows, seqlen).
        dense: hidden states that leave the last block of the dense model on them.
        batch: windows in one forward pass.
        band: where the costs are taken.
        of_text: cross-entropy instead of D.
        second_order: weight of the term ½·N·(G·W)² beside −G·W, an estimate of the curvature from
            the gradient of a mean over N tokens.
    """

    def __init__(
        self,
        runner: BlockRunner,
        ranks: Ranks,
        tokens: Tensor,
        dense: Tensor,
        batch: int,
        band: Band,
        *,
        of_text: bool = False,
        second_order: float = 0.0,
    ) -> None:
        self._runner, self._ranks, self._band = runner, ranks, band
        self._tokens, self._dense, self._batch = tokens, dense, batch
        self._of_text, self._second_order = of_text, second_order
        self._scale = 1.0

    @property
    def _subject(self) -> DecoderModel:
        return self._runner.subject

    @torch.no_grad()
    def value(self, counts: Counts, windows: Sequence[int]) -> float:
        """The objective, by forward passes alone."""
        runner = self._runner.on(self._tokens[list(windows)], self._batch)
        hidden = runner.embedded
        for index, linears in self._subject.walk():
            with swapped_weights(linears, self._ranks.masked(linears, counts)):
                hidden = runner.run(index, hidden)
        losses = [self._loss(*piece) for piece in self._pieces(runner, hidden, windows)]
        return float(torch.stack(losses).sum()) / self._terms(windows)

    def margins(self, counts: Counts, windows: Sequence[int]) -> Margins:
        """The objective and the cost of one more zero in every row.

        Raises:
            UserError: no scale of the loss keeps the gradients finite in the model's dtype.
        """
        while self._scale > LEAST_SCALE:
            found = self._margins(counts, windows)
            if all(bool(torch.isfinite(cost).all()) for cost in found.costs.values()):
                return found
            self._scale /= 16
        raise UserError(
            "topup: the gradients of the output divergence are not finite; "
            "try model.dtype=bfloat16 or float32"
        )

    def _margins(self, counts: Counts, windows: Sequence[int]) -> Margins:
        runner = self._runner.on(self._tokens[list(windows)], self._batch)
        fitting = _graphs_that_fit(self._subject, len(windows) * self._tokens.shape[1])
        passes: list[Pass] = []
        hidden = runner.embedded
        for index, linears in self._subject.walk():
            keep = index >= len(self._subject) - fitting  # the last ones are needed soonest
            with leaf_weights(linears, self._ranks.masked(linears, counts)) as leaves:
                passed = Pass.forward(runner, index, hidden, leaves if keep else None)
            hidden = [part.detach() for part in passed.outputs]
            passes.append(passed if keep else passed.without_outputs())
        value, flowing = self._head_gradients(runner, hidden, windows)
        costs: dict[str, Tensor] = {}
        for index, linears in self._subject.walk(backwards=True):
            passed = passes.pop()
            if not passed.leaves:
                with leaf_weights(linears, self._ranks.masked(linears, counts)) as leaves:
                    gradients, flowing = walk_back(runner, index, passed, leaves, flowing)
            else:
                gradients, flowing = walk_back(runner, index, passed, passed.leaves, flowing)
            for linear, gradient in zip(linears, gradients, strict=True):
                costs[linear.key] = self._costs(linear, gradient, counts[linear.key], windows)
        return Margins(value, costs)

    def _head_gradients(
        self, runner: BlockRunner, hidden: Sequence[Tensor], windows: Sequence[int]
    ) -> tuple[float, list[Tensor]]:
        """The objective, and the gradient of its `_scale`-fold SUM over tokens at `hidden`."""
        leaves = [part.detach().requires_grad_(True) for part in hidden]
        flowing = [torch.zeros_like(part) for part in hidden]
        losses = []
        for piece in self._pieces(runner, leaves, windows):
            loss = self._loss(*piece)
            losses.append(loss.detach())
            found = torch.autograd.grad(loss * self._scale, leaves, allow_unused=True)
            for total, part in zip(flowing, found, strict=True):
                if part is not None:
                    total += part
        return float(torch.stack(losses).sum()) / self._terms(windows), flowing

    def _pieces(
        self, runner: BlockRunner, hidden: Sequence[Tensor], windows: Sequence[int]
    ) -> Iterator[tuple[BlockRunner, Tensor, Tensor, Tensor]]:
        """Runner, sparse hidden states, dense ones and next tokens, a few tokens at a time."""
        seqlen = self._tokens.shape[1]
        row = 4 * int(self._subject.model.config.get_text_config().vocab_size)
        budget = LOGIT_BYTES["cuda" if self._subject.device.type == "cuda" else "cpu"]
        many, width = max(1, budget // (row * seqlen)), max(1, min(seqlen, budget // row))
        begin = 0
        for part in hidden:
            chosen = list(windows[begin : begin + len(part)])
            begin += len(part)
            following = self._tokens[chosen].roll(-1, dims=1)
            following[:, -1] = -100  # nothing follows the last token
            for w in range(0, len(part), many):
                for t in range(0, seqlen, width):
                    where = (slice(w, w + many), slice(t, t + width))
                    dense = self._dense[chosen[w : w + many], t : t + width]
                    yield runner, part[where], dense.to(part.device), following[where]

    def _loss(
        self, runner: BlockRunner, hidden: Tensor, dense: Tensor, following: Tensor
    ) -> Tensor:
        """Sum of the objective's terms over some tokens."""
        logits = logits_of(runner, hidden)
        if self._of_text:
            targets = following.to(logits.device)
            return nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="sum"
            )
        with torch.no_grad():
            truth = logits_of(runner, dense).log_softmax(-1)
        return nn.functional.kl_div(logits.log_softmax(-1), truth, reduction="sum", log_target=True)

    def _terms(self, windows: Sequence[int]) -> int:
        """Tokens that the objective is a mean over."""
        return len(windows) * (self._tokens.shape[1] - int(self._of_text))

    def _costs(
        self, linear: PrunableLinear, gradient: Tensor, counts: Tensor, windows: Sequence[int]
    ) -> Tensor:
        terms = self._terms(windows)
        return self._ranks.costs(
            linear,
            gradient,
            counts,
            self._band.width(linear.cols),
            scale=self._scale * terms,
            curvature=self._second_order * terms / 2,
        )


def _graphs_that_fit(subject: DecoderModel, tokens: int) -> int:
    """Blocks whose graphs memory takes at once: their masked weights and activations."""
    if subject.placement.offloads:  # graphs of many blocks are what shall not be in memory
        return 0
    width = next(iter(subject)).module.weight.element_size()
    activations = TENSORS_OF_GRAPH * tokens * sum(linear.rows for linear in subject)
    each = width * (subject.numel + activations) / len(subject)
    return min(len(subject), int(SHARE * free_memory(subject.device) / each))
