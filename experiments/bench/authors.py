"""A candidate as the NeuroAL authors' code measures it: to time, not to use.

One window at a time, two whole passes of every block, statistics in float32 by a hook of each
linear, a stable sort of all scores, a mask scattered from its indices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.common import now
from neuroal.blocks import BlockRunner
from neuroal.models.adapter import DecoderModel, PrunableLinear


class _Norms:
    """Running mean over windows of Σ x², as Wanda's code keeps it."""

    def __init__(self, linears: tuple[PrunableLinear, ...]) -> None:
        self.rows = {lin.key: torch.zeros(lin.cols, device=lin.module.weight.device)
                     for lin in linears}  # fmt: skip
        self.seen = dict.fromkeys(self.rows, 0)
        self.handles = [lin.module.register_forward_hook(self._hook(lin.key)) for lin in linears]

    def _hook(self, key: str) -> Any:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).t().float()
            count = self.seen[key]
            self.rows[key] *= count / (count + 1)
            self.seen[key] = count + 1
            self.rows[key] += torch.norm(x, p=2, dim=1) ** 2 / (count + 1)

        return add

    def finish(self) -> dict[str, Tensor]:
        for handle in self.handles:
            handle.remove()
        return self.rows


@torch.no_grad()
def candidate_seconds(subject: DecoderModel, tokens: Tensor, sparsity: float) -> float:
    """Seconds of one candidate, the model's embedding apart."""
    runner = BlockRunner.capture(subject, tokens, 1)
    begin, criterion = now(), 0.0
    hidden = runner.embedded
    for index, linears in enumerate(subject.linears):
        norms = _Norms(linears)
        runner.run(index, hidden)
        dense = norms.finish()
        kept = {lin.key: lin.module.weight.data.clone() for lin in linears}
        for lin in linears:
            scores = lin.module.weight.data.abs() * torch.sqrt(dense[lin.key].reshape(1, -1))
            mask = torch.zeros_like(scores, dtype=torch.bool)
            order = torch.sort(scores, dim=-1, stable=True)[1]
            mask.scatter_(1, order[:, : int(scores.shape[1] * sparsity)], True)
            lin.module.weight.data[mask] = 0
        norms = _Norms(linears)
        hidden = runner.run(index, hidden)
        sparse = norms.finish()
        for lin in linears:
            before, after = torch.sqrt(dense[lin.key]), torch.sqrt(sparse[lin.key])
            distance = torch.norm(before / before.sum() - after / after.sum())
            criterion += float(distance) / lin.cols
            lin.module.weight.data.copy_(kept[lin.key])
    return now() - begin
