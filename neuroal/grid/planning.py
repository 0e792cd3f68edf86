"""From a declaration to configurations: each choice is composed once, not once a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import RunConfig
from neuroal.errors import UserError
from neuroal.grid.declaration import Choice, Declaration, GridRun
from neuroal.records.identity import identity
from neuroal.validation import explain, validate

Choices = tuple[Choice, ...]
Compose = Callable[[Sequence[str]], RunConfig]
"""From overrides to a checked configuration."""
Changes = Mapping[str, Any]
"""Dotted path (two names at most) → value."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run that a grid asks for.

    Attributes:
        run: its place in the declaration.
        config: the whole configuration.
        identity: by which its record is found.
    """

    run: GridRun
    config: RunConfig
    identity: str

    @property
    def record_path(self) -> Path:
        return Path(self.config.out) / f"{self.identity}.json"


def plan_runs(declaration: Declaration, fixed: Sequence[str], compose: Compose) -> list[PlannedRun]:
    """All runs of `declaration`, each once.

    Args:
        declaration: of the grid.
        fixed: overrides that hold in all runs.
        compose: makes a configuration of overrides; called once for every choice.

    Raises:
        UserError: a choice that cannot be composed.
    """
    runs = list(declaration.runs())
    if not runs:
        raise UserError("the grid has no runs: no task of it is at hand")
    first, first_pair = _split(declaration, runs[0])

    def composed(own: Choices, pair: Choices) -> RunConfig:
        return compose([*fixed, *(f"{key}={value}" for key, value in (*own, *pair))])

    base = composed(first, first_pair)
    flat = _leaves(base)

    @cache
    def changes_of(own: Choices, pair: Choices) -> Changes:
        """What differs from the first run if these take the place of its own."""
        if own and own[0][0] in flat and own[0][0] != "pruner":  # a plain key, not a group
            made = _leaves(set_key(base, *own[0]))
        else:
            others = tuple((key, dict(own).get(key, value)) for key, value in first)
            made = _leaves(composed(others, pair))
        return {path: value for path, value in made.items() if value != flat[path]}

    found: dict[str, PlannedRun] = {}
    for run in runs:
        own, pair = _split(declaration, run)
        changes = dict(changes_of((), pair))
        for choice in own:
            changes |= changes_of((choice,), first_pair)
        changes["task.names"] = list(run.tasks)
        config = _changed(base, changes)
        name = identity(config)
        found.setdefault(name, PlannedRun(run, config, name))
    return list(found.values())


def _split(declaration: Declaration, run: GridRun) -> tuple[Choices, Choices]:
    """The choices of axes and pruner, which are independent, and those of the competitor."""
    single = {*declaration.axes, "pruner"}
    return (
        tuple(choice for choice in run.choices if choice[0] in single),
        tuple(choice for choice in run.choices if choice[0] not in single),
    )


def set_key(config: RunConfig, key: str, text: str) -> RunConfig:
    """`config` with a plain key such as ``calibration.windows`` set as on the command line.

    Composing gives the same and takes a hundred times as long.

    Raises:
        UserError: a value that the key cannot have.
    """
    node = _schema()
    try:
        OmegaConf.update(node, key, OmegaConf.from_dotlist([f"value={text}"]).value)
        value = OmegaConf.select(node, key)
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    part, dot, leaf = key.rpartition(".")
    if dot:
        key, value = part, dataclasses.replace(getattr(config, part), **{leaf: value})
    changed = dataclasses.replace(config, **{key: value})
    validate(changed)
    return changed


@cache
def _schema() -> DictConfig:
    schema: DictConfig = OmegaConf.structured(RunConfig)
    return schema


def _leaves(config: RunConfig) -> dict[str, Any]:
    """The fields of a configuration and of its parts, by dotted path; methods are one value."""
    leaves: dict[str, Any] = {}
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            leaves |= {f"{name}.{key}": leaf for key, leaf in vars(value).items()}
        else:
            leaves[name] = value
    return leaves


def _changed(base: RunConfig, changes: Changes) -> RunConfig:
    parts: dict[str, dict[str, Any]] = {}
    top: dict[str, Any] = {}
    for path, value in changes.items():
        name, dot, key = path.partition(".")
        if dot:
            parts.setdefault(name, {})[key] = value
        else:
            top[name] = value
    changed = {name: replace(getattr(base, name), **values) for name, values in parts.items()}
    return replace(base, **top, **changed)
