"""Require that every run of a sweep or grid saves its model and plan under a name of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from neuroal.config import schema
from neuroal.config.schema import RunConfig, SaveConfig, value_at
from neuroal.errors import UserError
from neuroal.grid.planning import PlannedRun

TARGETS = ("save.model", "save.plan")


def check_sweep(
    first: RunConfig, variations: Sequence[Sequence[RunConfig]], keys: Sequence[str]
) -> None:
    """Raise `UserError` if two runs of a sweep write to one target.

    Args:
        first: configuration with the first value of every override.
        variations: for each swept key, the configurations that differ from `first` in it alone.
        keys: the swept keys.
    """
    for target in TARGETS:
        for varied in variations:
            paths = [value_at(config, target) for config in (first, *varied)]
            _check_distinct(target, paths, keys)


def check_continuous(overrides: Sequence[str], config: RunConfig) -> None:
    """Raise `UserError` if a sweep without a list of values writes to one target."""
    texts = dict(override.partition("=")[::2] for override in overrides)
    for target in TARGETS:
        path = value_at(config, target)
        if path is not None and "${" not in texts.get(target, ""):
            raise _shared(target, str(path), ())


def with_own_targets(
    runs: Sequence[PlannedRun], compose: Callable[[PlannedRun], SaveConfig]
) -> list[PlannedRun]:
    """Return the runs of a grid, each with the targets that its own choices give.

    Args:
        runs: runs of the grid.
        compose: composes the group ``save`` of one run.

    Raises:
        UserError: two runs write to one target.
    """
    if not runs or not any(value_at(runs[0].config, target) for target in TARGETS):
        return list(runs)
    own: list[PlannedRun] = []
    for run in runs:
        config = dataclasses.replace(run.config, save=compose(run))
        own.append(dataclasses.replace(run, config=config))
        for target in TARGETS:
            paths = [value_at(planned.config, target) for planned in own]
            _check_distinct(target, paths, [key for key, _ in run.run.choices])
    return own


def _check_distinct(key: str, paths: Sequence[str | None], swept: Sequence[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        if path is None:
            continue
        if os.path.realpath(path) in seen:
            raise _shared(key, path, swept)
        seen.add(os.path.realpath(path))


def _shared(key: str, path: str, swept: Sequence[str]) -> UserError:
    names = [
        f"hydra:runtime.choices.{name}" if (schema.conf_dir() / name).is_dir() else name
        for name in swept
        if name not in TARGETS
    ]
    own = "-".join(f"${{{name}}}" for name in names or ("hydra:job.num",))
    plan = Path(path)
    example = f"{path}/{own}" if key == "save.model" else plan.with_stem(f"{plan.stem}-{own}")
    return UserError(
        f"{key}={path}: several runs would write to it; give each its own, as in {key}='{example}'"
    )
