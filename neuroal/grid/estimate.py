"""Estimate the time and memory that runs need, without loading a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, Status
from neuroal.models.shape import shape_of
from neuroal.records.memory import memory_of
from neuroal.records.rates import (
    Observation,
    card_of,
    kept_observations,
    observations_in,
    seconds_for,
)
from neuroal.records.work import FORWARD, work_of


@dataclass(frozen=True)
class Estimate:
    """Time of one worker and peak memory of runs.

    Attributes:
        seconds: None: unknown, because nothing was run on this card.
        peak_bytes: None: unknown, because the shape of a model is not known.
        runs: number of runs.
        measured: number of runs whose model was run before on this card.
        device: card of the estimate.
    """

    seconds: float | None
    peak_bytes: float | None
    runs: int
    measured: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def estimate_grid(runs: Sequence[PlannedRun], statuses: Sequence[Status]) -> Estimate:
    """Estimate the unfinished runs of a grid."""
    unfinished = [
        planned.config
        for planned, status in zip(runs, statuses, strict=True)
        if status.state is not RunState.DONE
    ]
    return estimate(unfinished)


def estimate(configs: Sequence[RunConfig]) -> Estimate:
    """Estimate runs one after the other.

    Time follows finished runs in the folders of records and earlier runs of this user, each stage
    by the amount of its work (`work_of`): of the same model and card, else of the same card. Memory
    follows from the placement.
    """
    if not configs:
        return Estimate(0.0, 0.0, 0, 0, "")
    outs = {Path(config.out) for config in configs}
    observations = [o for out in outs for o in observations_in(out, config_of)]
    observations += kept_observations()
    device, on_gpu = device_of(configs[0], observations)
    seconds, peak, measured = list[float | None](), list[float | None](), 0
    evaluated: set[tuple[str, ...]] = set()
    for config in configs:
        key = (config.model.path, *config.task.names)
        spent, is_measured = _seconds(config, device, observations, with_dense=key not in evaluated)
        evaluated.add(key)
        seconds.append(spent)
        shape = shape_of(config.model)
        peak.append(None if shape is None else memory_of(config, shape, on_gpu))
        measured += is_measured
    return Estimate(_combined(sum, seconds), _combined(max, peak), len(configs), measured, device)


def _seconds(
    config: RunConfig, device: str, observations: Sequence[Observation], *, with_dense: bool
) -> tuple[float | None, bool]:
    """Return the seconds of a run, and whether its model was run before on this card."""
    shape = shape_of(config.model)
    if shape is None:
        return None, False
    work = list(work_of(config, shape).items())
    if with_dense:
        work.append((FORWARD, dict(work)[FORWARD]))
    card, model = card_of(config, device), config.model.path
    stages = [seconds_for(stage, amount, card, model, observations) for stage, amount in work]
    is_measured = all(stage is not None and stage[1] for stage in stages)
    return _combined(sum, [None if stage is None else stage[0] for stage in stages]), is_measured


def device_of(config: RunConfig, observations: Sequence[Observation]) -> tuple[str, bool]:
    """Return the name of the card on which runs are estimated, and whether it is a GPU.

    On a machine without a GPU that has no earlier runs of its own, such as a login node, it is the
    card of the newest record.
    """
    from neuroal.models.devices import resolve_device
    from neuroal.records.identity import environment

    try:
        device = resolve_device(config.device)
    except UserError:  # the GPU of another machine
        cards = [o.card for o in observations]
    else:
        name = str(environment(device)["device"])
        if device.type == "cuda" or config.device == "cpu":
            return name, device.type == "cuda"
        cards = [o.card for o in observations]
        if not cards or any(card.startswith(name) for card in cards):
            return name, False
    name = cards[0].partition(", ")[0] if cards else config.device
    if name == "CPU":
        name = ", ".join(cards[0].split(", ")[:2])
    return name, not name.startswith("CPU")


def config_of(plain: Mapping[str, Any]) -> RunConfig | None:
    """Return the configuration of a record; None if it has other keys than this version."""
    try:
        config = _typed(RunConfig, plain)
    except (TypeError, KeyError):
        return None
    assert isinstance(config, RunConfig)
    return config


def _typed(schema: Any, plain: Mapping[str, Any]) -> Any:
    types = get_type_hints(schema)
    values = {
        name: _typed(types[name], value) if is_dataclass(types[name]) else value
        for name, value in plain.items()
    }
    return schema(**values)


def _combined(
    combine: Callable[[list[float]], float], values: Sequence[float | None]
) -> float | None:
    """Return ``combine(values)``; None if one of them is unknown."""
    numbers = [value for value in values if value is not None]
    return combine(numbers) if len(numbers) == len(values) else None
