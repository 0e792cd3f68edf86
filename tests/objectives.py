"""Objectives of gradient-based allocation on small models."""

from __future__ import annotations

from typing import Any

import torch

from neuroal.execution.runner import BlockRunner
from neuroal.gradients.divergence import OutputDivergence
from neuroal.gradients.objective import Band, ObjectiveInputs
from neuroal.gradients.weight_order import WeightOrder
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.magnitude import Magnitude
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens

TOKENS = random_tokens(5, 24)


def objective_of(decoder: DecoderModel, batch: int, **options: Any) -> OutputDivergence:
    """Return the output divergence on `TOKENS`, with weights in the order of magnitude."""
    runner = BlockRunner.capture(decoder, TOKENS, batch)
    order = WeightOrder(decoder, Magnitude())
    dense = torch.cat(order.compute(runner, QuietProgress()))
    inputs = ObjectiveInputs(runner, order, TOKENS, batch, Band())
    return OutputDivergence(inputs, dense, **options)
