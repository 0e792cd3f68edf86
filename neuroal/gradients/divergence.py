"""The divergence of the sparse model's output from the dense model's, as an objective.

One backward pass gives the gradient at every weight, including the zeroed ones. It proceeds block
by block: the gradients of a block are reduced to one cost per row and then released.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.execution.compiled_gradients import Reduction, weight_gradient
from neuroal.execution.lm_head import logits_of
from neuroal.execution.memory import free_memory
from neuroal.execution.pruned_walk import PrunedWalk
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import BlockPass, Sums, walk_back
from neuroal.gradients.head import Chunk, LossOf, output_gradients, output_loss
from neuroal.gradients.objective import MarginalCosts, ObjectiveInputs
from neuroal.gradients.weight_order import Counts
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.models.weights import leaf_weights, swapped_weights

GRAPH_SHARE = 0.3
"""Share of free memory for graphs; blocks whose graph does not fit run forward twice."""
GRAPH_TENSORS = 3
"""Approximate number of tensors that a graph stores per output of a linear."""
LEAST_SCALE = 2.0**-24
GRADIENTS = Reduction(weight_gradient)


class OutputDivergence:
    """D = mean over tokens of KL(p_dense ‖ p_sparse), or the cross-entropy of the text.

    Args:
        inputs: model, windows and order of the weights.
        dense: last hidden states of the dense model, (windows, seqlen, hidden).
        of_text: use the cross-entropy of the text instead of D.
        second_order: weight c of a second-order term beside −G·W: c·½·N·(G·W)², which estimates the
            curvature from the gradient of a mean over N tokens.
    """

    def __init__(
        self,
        inputs: ObjectiveInputs,
        dense: Tensor,
        *,
        of_text: bool = False,
        second_order: float = 0.0,
    ) -> None:
        self._inputs, self._dense = inputs, dense
        self._order, self._tokens = inputs.order, inputs.tokens
        self._of_text, self._second_order = of_text, second_order
        self._scale = 1.0

    @property
    def _decoder(self) -> DecoderModel:
        return self._inputs.runner.decoder

    @torch.no_grad()
    def value(self, counts: Counts, windows: Sequence[int]) -> float:
        """Return the objective, from forward passes only."""
        runner = self._inputs.runner_on(windows)
        walk = PrunedWalk(runner, lambda linears, _: self._order.masked(linears, counts))
        own = [windows[index] for index in runner.share.windows]
        total = output_loss(runner, walk.finish(), own, self._loss_of(runner))
        return runner.share.total(total) / self._terms(windows)

    def margins(self, counts: Counts, windows: Sequence[int]) -> MarginalCosts:
        """Return the objective and the marginal cost of every row.

        Gradients that overflow are computed again with a smaller scale of the loss.
        """
        while self._scale > LEAST_SCALE:
            margins = self._margins(counts, windows)
            if bool(torch.isfinite(torch.cat(list(margins.costs.values()))).all()):
                return margins
            self._scale /= 16
        raise UserError(
            "topup: the gradients of the output divergence are not finite; "
            "try model.dtype=bfloat16 or float32"
        )

    def _margins(self, counts: Counts, windows: Sequence[int]) -> MarginalCosts:
        runner = self._inputs.runner_on(windows)
        share = runner.share
        own = [windows[index] for index in share.windows]
        passes, hidden = self._forward(runner, counts, own)
        total, upstream = output_gradients(runner, hidden, own, self._loss_of(runner), self._scale)
        costs: dict[str, Tensor] = {}
        for index, linears in self._decoder.walk(backwards=True):
            forward = passes.pop()
            weights = {} if forward.calls else self._order.masked(linears, counts)
            with swapped_weights(linears if weights else (), weights):
                gradients, upstream = walk_back(runner, index, forward, upstream, GRADIENTS)
            parts = {linear.key: _gradient(gradients, linear) for linear in linears}
            sums = self._order.summed(parts, counts, self._inputs.band.width, share)
            for linear in linears:
                key = linear.key
                costs[key] = self._costs(linear, sums[key], counts[key], windows)
        value = share.total(float(total)) / self._terms(windows)
        return MarginalCosts(value, self._order.joined(costs))

    def _forward(
        self, runner: BlockRunner, counts: Counts, windows: Sequence[int]
    ) -> tuple[list[BlockPass], Sequence[Tensor]]:
        graphs = 0
        if not runner.compiles_gradients(0):
            graphs = _graphs_that_fit(self._decoder, len(windows) * self._tokens.shape[1])
        passes: list[BlockPass] = []
        hidden: Sequence[Tensor] = runner.embedded
        for index, linears in self._decoder.walk():
            weights = self._order.masked(linears, counts)
            # The backward pass uses the graphs of the last blocks first, so these are stored.
            if index >= len(self._decoder) - graphs:
                with leaf_weights(linears, weights):  # the graph holds the parameters
                    passes.append(BlockPass.record(runner, index, hidden))
                hidden = passes[-1].outputs
            else:
                passes.append(BlockPass(hidden))
                with swapped_weights(linears, weights):
                    hidden = runner.run(index, hidden)
        return passes, hidden

    def _loss_of(self, runner: BlockRunner) -> LossOf:
        return self._text_loss if self._of_text else partial(self._divergence, runner)

    def _text_loss(self, logits: Tensor, chunk: Chunk) -> Tensor:
        """Return the sum of the cross-entropy of the text over the tokens of a chunk."""
        targets = self._tokens[chunk.windows].roll(-1, dims=1)
        targets[:, -1] = -100  # the last token has no target
        targets = targets[:, chunk.positions].to(logits.device)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")

    def _divergence(self, runner: BlockRunner, logits: Tensor, chunk: Chunk) -> Tensor:
        """Return the sum of KL(p_dense ‖ p_sparse) over the tokens of a chunk."""
        with torch.no_grad():
            hidden = self._dense[chunk.windows, chunk.positions].to(logits.device)
            dense = logits_of(runner, hidden).log_softmax(-1)
        return nn.functional.kl_div(logits.log_softmax(-1), dense, reduction="sum", log_target=True)

    def _terms(self, windows: Sequence[int]) -> int:
        """Return the number of tokens that the objective averages over."""
        return len(windows) * (self._tokens.shape[1] - int(self._of_text))

    def _costs(
        self, linear: PrunableLinear, gradient: Tensor, counts: Tensor, windows: Sequence[int]
    ) -> Tensor:
        width, terms = self._inputs.band.width(linear.cols), self._terms(windows)
        scale, curvature = self._scale * terms, self._second_order * terms / 2
        return self._order.costs(linear, gradient, counts, width, scale, curvature)


def _gradient(gradients: Sums, linear: PrunableLinear) -> Tensor:
    """Return the gradient at the weight of `linear`, which is 0 if no token reached it."""
    (gradient,) = gradients.get(linear.key) or (torch.zeros_like(linear.weight),)
    return gradient


def _graphs_that_fit(decoder: DecoderModel, tokens: int) -> int:
    """Return the number of blocks whose graphs (masked weights, activations) fit into memory."""
    if decoder.placement.offloads:  # offloading exists to avoid many blocks in memory
        return 0
    entry_bytes = next(iter(decoder)).weight.element_size()
    activations = GRAPH_TENSORS * tokens * sum(linear.rows for linear in decoder)
    block_bytes = entry_bytes * (decoder.numel + activations) / len(decoder)
    return min(len(decoder), int(GRAPH_SHARE * free_memory(decoder.device) / block_bytes))
