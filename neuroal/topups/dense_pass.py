"""One pass through the dense model that looks at every block: what OWL and DLP are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from neuroal.blocks import BlockRunner
from neuroal.models.adapter import PrunableLinear
from neuroal.statistics import InputStatistics, Need
from neuroal.topups.base import AllocationContext

BlockScore = Callable[[list[Tensor]], float]


def saliency(linear: PrunableLinear, statistics: InputStatistics) -> Tensor:
    """|W|·a of one linear: (rows, cols) float32."""
    return linear.module.weight.data.float().abs() * statistics.norm


def score_blocks(context: AllocationContext, score: BlockScore) -> dict[int, float]:
    """`score` of the saliencies |W|·a of all linears of each block that has any.

    No block is pruned on the way, so all statistics are those of the dense model.
    """
    subject = context.subject
    runner = BlockRunner.capture(subject, context.tokens, context.batch)
    hidden = runner.embedded
    scores: dict[int, float] = {}
    with context.progress.stage("dense pass", len(subject), "block") as step:
        for index, linears in subject.walk():
            last = index == len(subject) - 1
            hidden, statistics = runner.measure(
                index, hidden, frozenset({Need.NORM}), outputs=not last
            )
            if linears:
                scores[index] = score(_saliencies(linears, statistics))
            step.advance(1)
    return scores


def _saliencies(
    linears: tuple[PrunableLinear, ...], statistics: Mapping[str, InputStatistics]
) -> list[Tensor]:
    return [saliency(linear, statistics[linear.key]) for linear in linears]
