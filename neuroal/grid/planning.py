"""Compose the configurations of a grid: each choice once, not once per run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config.schema import RunConfig
from neuroal.config.validation import checked, explain
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration, GridRun, KeyValue
from neuroal.records.identity import identity_of

KeyValues = tuple[KeyValue, ...]
Compose = Callable[[Sequence[str]], RunConfig]
"""Composes overrides into a checked configuration."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run of a grid with its complete configuration and the identity of its record."""

    run: GridRun
    config: RunConfig
    identity: str

    @property
    def record_path(self) -> Path:
        return Path(self.config.out) / f"{self.identity}.json"


def plan_runs(declaration: Declaration, fixed: Sequence[str], compose: Compose) -> list[PlannedRun]:
    """Return all runs of `declaration`, without duplicates.

    `fixed` are the overrides of all runs; `compose` is called once for every choice.
    """
    runs = list(declaration.runs())
    if not runs:
        raise UserError("the grid has no runs: none of its tasks is available")
    first, first_pair = _split(declaration, runs[0])

    def composed(own: KeyValues, pair: KeyValues) -> RunConfig:
        return compose([*fixed, *(f"{key}={value}" for key, value in (*own, *pair))])

    base = composed(first, first_pair)
    flat = _leaves(base)

    @cache
    def changes_of(own: KeyValues, pair: KeyValues) -> Mapping[str, Any]:
        """Return path → value of what changes if these choices replace those of the first run."""
        if own and own[0][0] in flat and own[0][0] != "pruner":  # a plain key, not a group
            leaves = _leaves(set_key(base, *own[0]))
        else:
            others = tuple((key, dict(own).get(key, value)) for key, value in first)
            leaves = _leaves(composed(others, pair))
        return {path: value for path, value in leaves.items() if value != flat[path]}

    planned: dict[str, PlannedRun] = {}
    for run in runs:
        own, pair = _split(declaration, run)
        changes = dict(changes_of((), pair))
        for choice in own:
            changes |= changes_of((choice,), first_pair)
        changes["task.names"] = list(run.tasks)
        config = base
        for path, value in changes.items():
            config = _with(config, path, value)
        identity = identity_of(config)
        planned.setdefault(identity, PlannedRun(run, config, identity))
    return list(planned.values())


def _split(declaration: Declaration, run: GridRun) -> tuple[KeyValues, KeyValues]:
    """Split the choices of `run` into those of axes and pruner, and those of its competitor."""
    single = {*declaration.axes, "pruner"}
    return (
        tuple(choice for choice in run.choices if choice[0] in single),
        tuple(choice for choice in run.choices if choice[0] not in single),
    )


def set_key(config: RunConfig, key: str, text: str) -> RunConfig:
    """Return `config` with a plain key such as ``calibration.windows`` set to a value.

    Composing gives the same result and takes a hundred times as long.
    """
    node = OmegaConf.structured(RunConfig)
    try:
        OmegaConf.update(node, key, OmegaConf.from_dotlist([f"value={text}"]).value)
        value = OmegaConf.select(node, key)
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    return checked(_with(config, key, value), explicit_ratio=key == "sparsity.ratio")


def _with(config: RunConfig, path: str, value: Any) -> RunConfig:
    """Return `config` with `value` at a dotted path of at most two names."""
    name, _, leaf = path.partition(".")
    if leaf:
        value = dataclasses.replace(getattr(config, name), **{leaf: value})
    return dataclasses.replace(config, **{name: value})


def _leaves(config: RunConfig) -> dict[str, Any]:
    """Return dotted path → value of all fields; the settings of a method are one value."""
    leaves: dict[str, Any] = {}
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            leaves |= {f"{name}.{key}": leaf for key, leaf in vars(value).items()}
        else:
            leaves[name] = value
    return leaves
