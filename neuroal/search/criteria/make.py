"""Construct the criterion of a search by name."""

from __future__ import annotations

import dataclasses

from neuroal.execution.runner import BlockRunner
from neuroal.models.devices import replica
from neuroal.search.context import AllocationContext
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.criteria.base import Criterion
from neuroal.search.criteria.output import OutputKL, OutputPerplexity
from neuroal.search.multi_device import MultiDeviceCriterion

CRITERIA = ("alignment", "output_kl", "perplexity")


def make_criterion(name: str, context: AllocationContext, runner: BlockRunner) -> Criterion:
    """Return the criterion `name` on the windows of `runner`.

    ``alignment`` compares activations inside the blocks (`AlignmentCriterion`). ``output_kl``
    compares the predictions with those of the dense model (`OutputKL`), and ``perplexity`` with
    the text (`OutputPerplexity`).

    If `context` has several devices, each gets a copy of the model and evaluates a part of the
    candidates (`MultiDeviceCriterion`).
    """
    devices = context.settings.devices
    first = _criterion(name, context, runner)
    if len(devices) < 2:
        return first
    criteria = [first]
    for device in devices[1:]:
        copy = dataclasses.replace(context, decoder=replica(context.decoder, device))
        captured = BlockRunner.capture(copy.decoder, copy.tokens, copy.batch)
        criteria.append(_criterion(name, copy, captured))
    return MultiDeviceCriterion(criteria, devices)


def _criterion(name: str, context: AllocationContext, runner: BlockRunner) -> Criterion:
    pruner = context.settings.pruner
    if name == "output_kl":
        return OutputKL(runner, pruner)
    if name == "perplexity":
        return OutputPerplexity(runner, pruner, context.tokens)
    return AlignmentCriterion(runner, pruner, context.settings.rules)
