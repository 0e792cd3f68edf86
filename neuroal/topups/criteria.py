"""The criteria that a search can be told to use, by name."""

from __future__ import annotations

import dataclasses

from neuroal.blocks import BlockRunner
from neuroal.models.replicas import replica
from neuroal.topups.alignment import AlignmentCriterion
from neuroal.topups.base import AllocationContext
from neuroal.topups.outcome import Criterion
from neuroal.topups.output import OutputKL, OutputPerplexity
from neuroal.topups.spread import SpreadCriterion

CRITERIA = ("alignment", "output_kl", "perplexity")


def make_criterion(name: str, context: AllocationContext, runner: BlockRunner) -> Criterion:
    """The criterion called `name` on the windows of `runner`.

    ``alignment`` compares activations inside the blocks (`AlignmentCriterion`), ``output_kl`` the
    model's predictions with the dense model's (`OutputKL`), ``perplexity`` them with the text
    (`OutputPerplexity`).

    Where `context` names several devices, each gets a copy of the model, and candidates are
    spread over them (`SpreadCriterion`).
    """
    first = _criterion(name, context, runner)
    if len(context.devices) < 2:
        return first
    criteria = [first]
    for device in context.devices[1:]:
        other = dataclasses.replace(context, subject=replica(context.subject, device), devices=())
        captured = BlockRunner.capture(other.subject, other.tokens, other.batch)
        criteria.append(_criterion(name, other, captured))
    return SpreadCriterion(criteria, context.devices)


def _criterion(name: str, context: AllocationContext, runner: BlockRunner) -> Criterion:
    if name == "output_kl":
        return OutputKL(runner, context.pruner)
    if name == "perplexity":
        return OutputPerplexity(runner, context.pruner, context.tokens)
    return AlignmentCriterion(runner, context.pruner, context.rules)
