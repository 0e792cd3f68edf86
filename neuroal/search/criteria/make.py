"""Construct the criterion of a search by name."""

from __future__ import annotations

from neuroal.execution.runner import BlockRunner
from neuroal.search.context import AllocationContext
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.criteria.base import Criterion
from neuroal.search.criteria.output import OutputKL, OutputPerplexity

CRITERIA = ("alignment", "output_kl", "perplexity")


def make_criterion(name: str, context: AllocationContext, runner: BlockRunner) -> Criterion:
    """Return the criterion `name` on the windows of `runner`.

    ``alignment`` compares activations inside the blocks (`AlignmentCriterion`). ``output_kl``
    compares the predictions with those of the dense model (`OutputKL`), and ``perplexity`` with
    the text (`OutputPerplexity`).
    """
    pruner = context.settings.pruner
    if name == "output_kl":
        return OutputKL(runner, pruner)
    if name == "perplexity":
        return OutputPerplexity(runner, pruner, context.tokens)
    return AlignmentCriterion(runner, pruner, context.settings.rules)
