"""The relative error that pruning causes in the output of each block, as an objective."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroal.gradients.objective import MarginalCosts, ObjectiveInputs
from neuroal.gradients.weight_order import Counts
from neuroal.models.weights import leaf_weights
from neuroal.parallel.peers import Share


class BlockError:
    """E = mean over blocks of ‖f(x; W) − f(x; W̃)‖² / ‖f(x; W)‖², with x from sparse blocks.

    f is a block, W its dense and W̃ its sparse weights, and x the output of the sparse blocks before
    it. Unlike `OutputDivergence`, E ignores how later blocks amplify or reduce an error.
    """

    def __init__(self, inputs: ObjectiveInputs) -> None:
        self._inputs = inputs

    def margins(self, counts: Counts, windows: Sequence[int]) -> MarginalCosts:
        order, runner = self._inputs.order, self._inputs.runner_on(windows)
        hidden, total = runner.embedded, 0.0
        costs: dict[str, Tensor] = {}
        for index, linears in runner.decoder.walk():
            dense = runner.run(index, hidden)
            with leaf_weights(linears, order.masked(linears, counts)) as leaves:
                sparse = [runner.call(index, number, part) for number, part in enumerate(hidden)]
                error = _relative_error(sparse, dense, runner.share)
                gradients = torch.autograd.grad(
                    error, leaves, allow_unused=True, materialize_grads=True
                )
            total += runner.share.total(float(error.detach()))
            hidden = [part.detach() for part in sparse]
            parts = {lin.key: part for lin, part in zip(linears, gradients, strict=True)}
            width_of = self._inputs.band.width
            sums = order.summed(parts, counts, width_of, runner.share)
            for linear in linears:
                key, width = linear.key, width_of(linear.cols)
                costs[key] = order.costs(
                    linear, sums[key], counts[key], width, scale=len(runner.decoder)
                )
        return MarginalCosts(total / len(runner.decoder), order.joined(costs))


def _relative_error(sparse: Sequence[Tensor], dense: Sequence[Tensor], share: Share) -> Tensor:
    """Return the part of E of one block that the windows of this device contribute."""
    errors = [(a.float() - b.float()).square().sum() for a, b in zip(sparse, dense, strict=True)]
    norms = [b.float().square().sum() for b in dense]
    (norm,) = share.sums([torch.stack(norms).sum()])
    return torch.stack(errors).sum() / norm
