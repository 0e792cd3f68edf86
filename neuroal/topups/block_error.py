"""The error that pruning makes in each block alone, as an objective of an allocation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroal.blocks import BlockRunner, leaf_weights
from neuroal.topups.divergence import Band, Margins
from neuroal.topups.ranks import Counts, Ranks


class BlockError:
    """Mean over blocks of ‖f(x; W) − f(x; W̃)‖² / ‖f(x; W)‖², x through the sparse blocks before.

    Unlike `OutputDivergence` it does not know what an error does further on.

    Args:
        runner: of the dense model, on any windows.
        ranks: which weights of a row go first.
        tokens: all windows (windows, seqlen).
        batch: windows in one forward pass.
        band: where the costs are taken.
    """

    def __init__(
        self, runner: BlockRunner, ranks: Ranks, tokens: Tensor, batch: int, band: Band
    ) -> None:
        self._runner, self._ranks, self._tokens = runner, ranks, tokens
        self._batch, self._band = batch, band

    def margins(self, counts: Counts, windows: Sequence[int]) -> Margins:
        """The objective and the cost of one more zero in every row."""
        runner = self._runner.on(self._tokens[list(windows)], self._batch)
        hidden, total = runner.embedded, 0.0
        costs: dict[str, Tensor] = {}
        for index, linears in runner.subject.walk():
            truth = runner.run(index, hidden)
            with leaf_weights(linears, self._ranks.masked(linears, counts)) as leaves:
                outputs = [runner.call(index, batch, part) for batch, part in enumerate(hidden)]
                error = _relative_error(outputs, truth)
                gradients = torch.autograd.grad(
                    error, leaves, allow_unused=True, materialize_grads=True
                )
            total += float(error.detach())
            hidden = [part.detach() for part in outputs]
            for linear, gradient in zip(linears, gradients, strict=True):
                width = self._band.width(linear.cols)
                costs[linear.key] = self._ranks.costs(
                    linear, gradient, counts[linear.key], width, scale=len(runner.subject)
                )
        return Margins(total / len(runner.subject), costs)


def _relative_error(found: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    errors = [(a.float() - b.float()).square().sum() for a, b in zip(found, truth, strict=True)]
    norms = [b.float().square().sum() for b in truth]
    return torch.stack(errors).sum() / torch.stack(norms).sum()
