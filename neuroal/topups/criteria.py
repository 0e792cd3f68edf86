"""The criteria that a search can be told to use, by name."""

from __future__ import annotations

from neuroal.blocks import BlockRunner
from neuroal.topups.alignment import AlignmentCriterion
from neuroal.topups.base import AllocationContext
from neuroal.topups.output import OutputKL, OutputPerplexity
from neuroal.topups.search import Criterion

CRITERIA = ("alignment", "output_kl", "perplexity")


def make_criterion(name: str, context: AllocationContext, runner: BlockRunner) -> Criterion:
    """The criterion called `name` on the windows of `runner`.

    ``alignment`` compares activations inside the blocks (`AlignmentCriterion`), ``output_kl`` the
    model's predictions with the dense model's (`OutputKL`), ``perplexity`` them with the text
    (`OutputPerplexity`).
    """
    if name == "output_kl":
        return OutputKL(runner, context.pruner)
    if name == "perplexity":
        return OutputPerplexity(runner, context.pruner, context.tokens)
    return AlignmentCriterion(runner, context.pruner, context.rules)
