"""The divergence of the sparse model's output from the dense model's, as an objective.

One backward pass gives the gradient at every weight, including the zeroed ones. It proceeds block
by block: the gradients of a block are reduced to one cost per row and then released.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.execution.lm_head import logits_of
from neuroal.execution.memory import free_memory
from neuroal.execution.pruned_walk import PrunedWalk
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import BlockPass, walk_back
from neuroal.gradients.objective import MarginalCosts, ObjectiveInputs
from neuroal.gradients.weight_order import Counts
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.models.weights import leaf_weights

LOGIT_BYTES = {"cuda": 2**28, "cpu": 2**25}
"""Size of one chunk of float32 logits; about six tensors of this size exist at a time."""
GRAPH_SHARE = 0.3
"""Share of free memory for graphs; blocks whose graph does not fit run forward twice."""
GRAPH_TENSORS = 3
"""Approximate number of tensors that a graph stores per output of a linear."""
LEAST_SCALE = 2.0**-24


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Tokens whose logits are computed together.

    `sparse` and `dense` are the last hidden states of the two models, (windows, tokens, hidden);
    `targets` are the token ids that follow, (windows, tokens), or -100.
    """

    sparse: Tensor
    dense: Tensor
    targets: Tensor


class OutputDivergence:
    """D = mean over tokens of KL(p_dense ‖ p_sparse), or the cross-entropy of the text.

    Args:
        inputs: model, windows and order of the weights.
        dense: last hidden states of the dense model, (windows, seqlen, hidden).
        of_text: use the cross-entropy of the text instead of D.
        second_order: weight of the second-order term ½·N·(G·W)² beside −G·W. It estimates the
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
        hidden = walk.finish()
        losses = [self._loss(runner, chunk) for chunk in self._chunks(hidden, windows)]
        return float(torch.stack(losses).sum()) / self._terms(windows)

    def margins(self, counts: Counts, windows: Sequence[int]) -> MarginalCosts:
        """Return the objective and the marginal cost of every row.

        Gradients that overflow are computed again with a smaller scale of the loss.
        """
        while self._scale > LEAST_SCALE:
            margins = self._margins(counts, windows)
            if all(bool(torch.isfinite(cost).all()) for cost in margins.costs.values()):
                return margins
            self._scale /= 16
        raise UserError(
            "topup: the gradients of the output divergence are not finite; "
            "try model.dtype=bfloat16 or float32"
        )

    def _margins(self, counts: Counts, windows: Sequence[int]) -> MarginalCosts:
        runner = self._inputs.runner_on(windows)
        passes, hidden = self._forward(runner, counts, windows)
        value, upstream = self._head_gradients(runner, hidden, windows)
        costs: dict[str, Tensor] = {}
        for index, linears in self._decoder.walk(backwards=True):
            forward = passes.pop()
            if not forward.leaves:
                with leaf_weights(linears, self._order.masked(linears, counts)) as leaves:
                    gradients, upstream = walk_back(runner, index, forward, leaves, upstream)
            else:
                gradients, upstream = walk_back(runner, index, forward, forward.leaves, upstream)
            for linear, gradient in zip(linears, gradients, strict=True):
                costs[linear.key] = self._costs(linear, gradient, counts[linear.key], windows)
        return MarginalCosts(value, costs)

    def _forward(
        self, runner: BlockRunner, counts: Counts, windows: Sequence[int]
    ) -> tuple[list[BlockPass], Sequence[Tensor]]:
        graphs = _graphs_that_fit(self._decoder, len(windows) * self._tokens.shape[1])
        passes: list[BlockPass] = []
        hidden = runner.embedded
        for index, linears in self._decoder.walk():
            # The backward pass uses the graphs of the last blocks first, so these are stored.
            store = index >= len(self._decoder) - graphs
            with leaf_weights(linears, self._order.masked(linears, counts)) as leaves:
                forward = BlockPass.forward(runner, index, hidden, leaves if store else None)
            hidden = [part.detach() for part in forward.outputs]
            passes.append(forward if store else forward.without_outputs())
        return passes, hidden

    def _head_gradients(
        self, runner: BlockRunner, hidden: Sequence[Tensor], windows: Sequence[int]
    ) -> tuple[float, list[Tensor]]:
        """Return the objective and the gradient of `_scale` times its sum over tokens at `hidden`.

        The sum instead of the mean keeps half-precision gradients away from underflow.
        """
        leaves = [part.detach().requires_grad_(True) for part in hidden]
        totals = [torch.zeros_like(part) for part in hidden]
        losses = []
        for chunk in self._chunks(leaves, windows):
            loss = self._loss(runner, chunk)
            losses.append(loss.detach())
            gradients = torch.autograd.grad(loss * self._scale, leaves, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient
        return float(torch.stack(losses).sum()) / self._terms(windows), totals

    def _chunks(self, hidden: Sequence[Tensor], windows: Sequence[int]) -> Iterator[_Chunk]:
        """Yield the tokens of `windows` in chunks of at most `LOGIT_BYTES` of logits."""
        seqlen = self._tokens.shape[1]
        token_bytes = 4 * int(self._decoder.model.config.get_text_config().vocab_size)
        chunk_bytes = LOGIT_BYTES["cuda" if self._decoder.device.type == "cuda" else "cpu"]
        many = max(1, chunk_bytes // (token_bytes * seqlen))
        width = max(1, min(seqlen, chunk_bytes // token_bytes))
        begin = 0
        for part in hidden:
            indices = list(windows[begin : begin + len(part)])
            begin += len(part)
            targets = self._tokens[indices].roll(-1, dims=1)
            targets[:, -1] = -100  # the last token has no target
            for w in range(0, len(part), many):
                for t in range(0, seqlen, width):
                    where = (slice(w, w + many), slice(t, t + width))
                    dense = self._dense[indices[w : w + many], t : t + width]
                    yield _Chunk(part[where], dense.to(part.device), targets[where])

    def _loss(self, runner: BlockRunner, chunk: _Chunk) -> Tensor:
        """Return the sum of the objective over the tokens of a chunk."""
        logits = logits_of(runner, chunk.sparse)
        if self._of_text:
            targets = chunk.targets.to(logits.device)
            logits, targets = logits.flatten(0, 1), targets.flatten()
            return nn.functional.cross_entropy(logits, targets, reduction="sum")
        with torch.no_grad():
            dense = logits_of(runner, chunk.dense).log_softmax(-1)
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


def _graphs_that_fit(decoder: DecoderModel, tokens: int) -> int:
    """Return the number of blocks whose graphs (masked weights, activations) fit into memory."""
    if decoder.placement.offloads:  # offloading exists to avoid many blocks in memory
        return 0
    entry_bytes = next(iter(decoder)).weight.element_size()
    activations = GRAPH_TENSORS * tokens * sum(linear.rows for linear in decoder)
    block_bytes = entry_bytes * (decoder.numel + activations) / len(decoder)
    return min(len(decoder), int(GRAPH_SHARE * free_memory(decoder.device) / block_bytes))
