"""Seconds of finished runs by stage, from which the time of other runs is estimated."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

from neuroal.config.schema import RunConfig
from neuroal.errors import first_line
from neuroal.files.atomic import without_ratios, write_bytes
from neuroal.models.shape import ModelShape, shape_of
from neuroal.records.schema import Record
from neuroal.records.work import FORWARD, PASS, Parts, evaluated_tokens, work_of

log = logging.getLogger(__name__)
CACHE = "NEUROAL_CACHE"
"""Environment variable of the folder that keeps the rates of this user's runs."""
MOST_LINES, MOST_RECORDS = 4000, 200
"""Most observations that are kept, and most records that are read in a folder."""
NEAREST = 3
"""Number of observations whose median is used."""
SIMILAR = 3.0
"""Amounts of work that differ by at most this factor are similar."""
FIRST = "first"
"""Prefix of the stages of observations of what a process does once, as compiling and importing."""
FAR = 30.0
"""A stage is not estimated from another model's if it has more than this many times its work: the
device mostly waits in runs of small models, so their rates say nothing about large ones."""


@dataclass(frozen=True)
class Observation:
    """Seconds that one stage of a run has taken.

    Attributes:
        card: device, with what else decides its speed (`card_of`).
        model: path of the model.
        stage: name of the stage, as in `work_of`.
        work: amount of work.
        seconds: its time.
        peak_bytes: peak memory of the run.
    """

    card: str
    model: str
    stage: str
    work: float
    seconds: float
    peak_bytes: int = 0


def card_of(config: RunConfig, device: str) -> str:
    """Return the name of a device with the settings of `config` that decide its speed."""
    more = [f"devices={config.devices}"] if config.devices > 1 else []
    more += [f"offload={config.offload}"] if config.offload != "none" else []
    more += [f"dtype={config.model.dtype}"] if config.model.dtype != "auto" else []
    return ", ".join([device, *more])


def observe(config: RunConfig, record: Record, shape: ModelShape) -> list[Observation]:
    """Return the observations of one finished run."""
    card = card_of(config, str(record.environment["device"]))
    seconds: Mapping[str, float] = record.costs.get("seconds", {})
    peak = max(record.costs.get("peak_bytes", {}).values(), default=0)
    work = work_of(config, shape)
    work[FORWARD] = 2 * shape.parameters * evaluated_tokens(config, shape, record.metrics)
    return [
        Observation(card, config.model.path, stage, amount, seconds[name], peak)
        for stage, amount in work.items()
        if (name := stage.partition(" ")[0]) in seconds and amount > 0
    ]


def rates_path() -> Path:
    """Return the file of this user's observations."""
    folder = os.environ.get(CACHE) or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "neuroal"
    )
    return Path(folder) / "rates.jsonl"


def keep(observations: Iterable[Observation]) -> bool:
    """Add observations to this user's file; return whether it could be written, and log if not.

    The lines are appended, so that workers that end together lose none.
    """
    text = "".join(f"{json.dumps(asdict(observation))}\n" for observation in observations)
    path = rates_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):  # a write that was cut off
                text = "\n" + text
            file.write(text.encode())
        lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) > 2 * MOST_LINES:
            write_bytes(path, b"".join(lines[-MOST_LINES:]))
    except OSError as error:
        log.debug("%s: cannot be written (%s); estimates lack this run", path, first_line(error))
        return False
    return True


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def keep_run(config: RunConfig, record: Record) -> None:
    """Keep the observations of a finished run, if the shape of its model can be read."""
    shape = shape_of(config.model)
    if shape is not None:
        keep(observe(config, record, shape))


def kept_observations() -> list[Observation]:
    """Return this user's observations; lines of another layout are left out."""
    try:
        lines = rates_path().read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return list(_parsed(lines))


def _parsed(lines: Iterable[str]) -> Iterator[Observation]:
    for line in lines:
        try:
            yield Observation(**json.loads(line))
        except (ValueError, TypeError):
            continue


def observations_in(out: Path, config_of: Any) -> list[Observation]:
    """Return the observations of the newest records in `out`.

    `config_of` converts the configuration of a record; None: it cannot be converted.
    """
    try:
        paths = sorted(out.glob("*.json"), key=lambda path: -path.stat().st_mtime)
    except OSError:
        return []
    observations: list[Observation] = []
    for path in paths[:MOST_RECORDS]:
        try:
            record = Record.from_dict(json.loads(without_ratios(path.read_text("utf-8"))))
        except (OSError, ValueError):
            continue
        config = config_of(record.config)
        if config is not None and (shape := shape_of(config.model)):
            observations += observe(config, record, shape)
    return observations


def seconds_for(
    stage: str, work: float, card: str, model: str, observations: Sequence[Observation]
) -> tuple[float, bool] | None:
    """Return the seconds of `work`, and whether they come from the same model; None: unknown.

    Uses the observations of the same card and stage whose amount of work is nearest, of the same
    model if there are any, else of models that are not too small (`FAR`). Without any, as for a
    method that was never run, the rate of forward passes counts.
    """
    if work <= 0:
        return 0.0, True
    near = [
        o
        for o in observations
        if o.card == card and o.work > 0 and (o.model == model or work <= FAR * o.work)
    ]
    of_stage = [o for o in near if o.stage == stage]
    if not of_stage and stage.partition(" ")[0] == "calibrate":
        of_stage = [o for o in near if o.stage.startswith("calibrate ")]
    if is_new := not of_stage:
        of_stage = [o for o in near if o.stage in (FORWARD, PASS)]
    same = [o for o in of_stage if o.model == model]
    if not of_stage:
        return None
    return _rate(same or of_stage, work) * work, bool(same) and not is_new


def _rate(observations: Sequence[Observation], work: float) -> float:
    """Return the median seconds per unit of work of the observations nearest to `work`."""
    candidates = sorted(observations, key=lambda o: abs(math.log(o.work / work)))
    similar = [o for o in candidates if _is_similar(o, work)]
    return median(o.seconds / o.work for o in (similar or candidates)[:NEAREST])


def _is_similar(observation: Observation, work: float) -> bool:
    return abs(math.log(observation.work / work)) <= math.log(SIMILAR)


def seconds_by_parts(
    stage: str,
    work: float,
    parts: Parts,
    card: str,
    model: str,
    observations: Sequence[Observation],
) -> float | None:
    """Return the seconds of a stage of `parts`, each by its measured rate (`grid.measure`).

    None: a part was not measured for this model and card, or a run of the model did a similar
    amount of `work` in this stage, whose time says more.
    """
    same = [o for o in observations if o.card == card and o.model == model and o.work > 0]
    if any(o.stage == stage and _is_similar(o, work) for o in same):
        return None
    total = 0.0
    for part, amount in parts.items():
        measured = [o for o in same if o.stage == part]
        if not measured:
            return None
        total += amount * _rate(measured, amount)
    return total


def seconds_once(stage: str, card: str, model: str, observations: Sequence[Observation]) -> float:
    """Return the measured seconds that a process needs for a stage once, as for compiling."""
    first = [o for o in observations if o.card == card and o.stage == f"{FIRST} {stage}"]
    same = [o for o in first if o.model == model]
    return (same or first)[-1].seconds if first else 0.0
