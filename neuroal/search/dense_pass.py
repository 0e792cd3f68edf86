"""Score the blocks of a model by their saliencies in one dense pass, as OWL and DLP do."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neuroal.execution.runner import BlockRunner
from neuroal.kernels.input_statistics import Need
from neuroal.search.context import AllocationContext


def mean_of(saliencies: list[Tensor]) -> float:
    """Return the mean over all entries."""
    total = sum(float(part.double().sum()) for part in saliencies)
    return total / sum(part.numel() for part in saliencies)


def score_blocks(
    context: AllocationContext, score: Callable[[list[Tensor]], float]
) -> dict[int, float]:
    """Return the score of each block, from the saliencies |W|·a (rows, cols) of its linears.

    Blocks without prunable linears are omitted.
    """
    decoder = context.decoder
    runner = BlockRunner.capture(decoder, context.tokens, context.batch)
    hidden = runner.embedded
    scores: dict[int, float] = {}
    with context.progress.stage("dense pass", len(decoder), "block") as step:
        for index, linears in decoder.walk():
            last = index == len(decoder) - 1
            hidden, statistics = runner.measure(
                index, hidden, frozenset({Need.NORM}), outputs=not last
            )
            if linears:
                scores[index] = score(
                    [lin.weight.float().abs() * statistics[lin.key].norm for lin in linears]
                )
            step.advance(1)
    return scores
