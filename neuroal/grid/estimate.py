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
    seconds_by_parts,
    seconds_for,
    seconds_once,
)
from neuroal.records.work import FINGERPRINT, FORWARD, Parts, parts_of, work_of


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


def estimate_grid(
    runs: Sequence[PlannedRun],
    statuses: Sequence[Status],
    measured: Sequence[Observation] = (),
) -> Estimate:
    """Estimate the unfinished runs of a grid; `measured` is what `measure` has just observed."""
    unfinished = [
        planned.config
        for planned, status in zip(runs, statuses, strict=True)
        if status.state is not RunState.DONE
    ]
    return estimate(unfinished, measured)


def estimate(configs: Sequence[RunConfig], measured: Sequence[Observation] = ()) -> Estimate:
    """Estimate runs one after the other.

    Time follows finished runs in the folders of records and earlier runs of this user, each stage
    by the amount of its work (`work_of`): of the same model and card, else of the same card. Where
    no run of the model is similar, what `measure` has observed of it counts first (`parts_of`).
    Memory follows from the placement.
    """
    if not configs:
        return Estimate(0.0, 0.0, 0, 0, "")
    outs = {Path(config.out) for config in configs}
    observations = [o for out in outs for o in observations_in(out, config_of)]
    observations += kept_observations()
    observations += [o for o in measured if o not in observations]
    device, on_gpu = device_of(configs[0], observations)
    times, peak = _Times(device, observations), list[float | None]()
    seconds = [times.of(config) for config in configs]
    for config in configs:
        shape = shape_of(config.model)
        peak.append(None if shape is None else memory_of(config, shape, on_gpu))
    return Estimate(
        _combined(sum, seconds), _combined(max, peak), len(configs), times.by_runs, device
    )


class _Times:
    """Estimates runs that one process does one after the other.

    Attributes:
        by_runs: number of runs so far whose model was run before on this card.
    """

    def __init__(self, device: str, observations: Sequence[Observation]) -> None:
        self._device, self._observations = device, observations
        self._begun: set[str] = set()
        """What a process does once: dense evaluations, and first executions of a stage."""
        self.by_runs = 0

    def of(self, config: RunConfig) -> float | None:
        """Return the seconds of the next run; None: unknown."""
        shape = shape_of(config.model)
        if shape is None:
            return None
        card, model = card_of(config, self._device), config.model.path
        parts = parts_of(config, shape)
        stages = [(name, work, parts[name]) for name, work in work_of(config, shape).items()]
        if self._is_first(f"{model} {config.task.names}"):
            _, work, own = stages[-1]
            stages.append((FORWARD, work, {**own, FINGERPRINT: shape.parameters}))
        seconds, by_runs = list[float | None](), True
        for name, work, own in stages:
            spent, by_run = self._stage(name, work, own, card, model)
            seconds.append(spent)
            by_runs &= by_run
        self.by_runs += by_runs
        return _combined(sum, seconds)

    def _stage(
        self, name: str, work: float, parts: Parts, card: str, model: str
    ) -> tuple[float | None, bool]:
        """Return the seconds of a stage, and whether they come from runs of the model."""
        measured = seconds_by_parts(name, work, parts, card, model, self._observations)
        if measured is None:
            return seconds_for(name, work, card, model, self._observations) or (None, False)
        if self._is_first(f"{model} {name}"):
            measured += seconds_once(name, card, model, self._observations)
        return measured, False

    def _is_first(self, name: str) -> bool:
        is_first = name not in self._begun
        self._begun.add(name)
        return is_first


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
