"""Measure the speed of a machine by one dense pass of each model."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from neuroal.config.schema import RunConfig
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.devices import resolve_device
from neuroal.models.load import load_model
from neuroal.models.shape import shape_of
from neuroal.records.identity import environment
from neuroal.records.rates import Observation, card_of, keep
from neuroal.records.work import FORWARD

WINDOWS, TOKENS = 8, 512
"""Windows of the pass, and most tokens of each."""


def measure(configs: Sequence[RunConfig]) -> None:
    """Time loading and a dense pass of every model of `configs`; keep the rates.

    Methods that were never run on this machine are then estimated by forward passes.
    """
    models = {str(config.model): config for config in configs}
    for config in models.values():
        keep(_observed(config))


def _observed(config: RunConfig) -> list[Observation]:
    device = resolve_device(config.device)
    card, path = card_of(config, str(environment(device)["device"])), config.model.path
    begin = time.perf_counter()
    loaded = load_model(config.model, device, config.offload, None, config.devices)
    load = time.perf_counter() - begin
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    seqlen = min(TOKENS, loaded.context)
    tokens = torch.randint(loaded.vocabulary, (WINDOWS, seqlen), generator=torch.Generator())
    perplexity(loaded.model, tokens[:1])  # warms up
    begin = time.perf_counter()
    perplexity(loaded.model, tokens)
    spent = time.perf_counter() - begin
    shape = shape_of(config.model)
    parameters = shape.parameters if shape else float(count)
    return [
        Observation(card, path, "load", parameters, load),
        Observation(card, path, FORWARD, 2 * parameters * tokens.numel(), spent),
    ]
