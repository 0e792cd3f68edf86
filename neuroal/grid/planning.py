"""Compose the configurations of a grid: each choice once, not once per run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config.schema import RunConfig
from neuroal.config.validation import checked, explain
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration, GridRun, KeyValue
from neuroal.records.contents import Contents
from neuroal.records.identity import former_identity_of, identity_of

KeyValues = tuple[KeyValue, ...]
Compose = Callable[[Sequence[str]], RunConfig]
"""Composes overrides into a checked configuration."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run of a grid with its complete configuration and the identity of its record.

    Attributes:
        absent: model and calibration text, as printed, if they cannot be read on this machine.
        data: task → content of its data (`Contents.tasks`).
    """

    run: GridRun
    config: RunConfig
    identity: str
    absent: tuple[str, ...] = ()
    data: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def record_path(self) -> Path:
        return Path(self.config.out) / f"{self.identity}.json"

    @property
    def former_record(self) -> Path:
        """Path of the record that version 0.1 wrote for this run."""
        return Path(self.config.out) / f"{former_identity_of(self.config)}.json"


def plan_runs(declaration: Declaration, fixed: Sequence[str], compose: Compose) -> list[PlannedRun]:
    """Return all runs of `declaration`, without duplicates.

    `fixed` are the overrides of all runs; `compose` is called once for every choice, and once more
    beside every option that sets keys of other groups.
    """
    runs = list(declaration.runs())
    if not runs:
        raise UserError("the grid has no runs: none of its tasks is available")
    first, first_pair = _split(declaration, runs[0])
    combined = _combining(
        first,
        first_pair,
        lambda choices: compose([*fixed, *(f"{key}={value}" for key, value in choices)]),
    )
    contents = Contents()
    planned: dict[str, PlannedRun] = {}
    for run in runs:
        config = _with(combined(*_split(declaration, run)), "task.names", list(run.tasks))
        identity = identity_of(config, contents)
        inputs = contents.absent(config), contents.tasks(config)
        planned.setdefault(identity, PlannedRun(run, config, identity, *inputs))
    return list(planned.values())


def _combining(
    first: KeyValues, first_pair: KeyValues, compose: Callable[[KeyValues], RunConfig]
) -> Callable[[KeyValues, KeyValues], RunConfig]:
    """Return a function from the choices of a run to its configuration.

    The function composes every choice once, beside the choices `first` and `first_pair` of the
    first run, and adds up the changes. An option that sets keys of other groups, as a model may set
    ``task.bos``, can change the effect of other choices, so these are composed beside it as well.
    """

    @cache
    def base_with(wide: KeyValues) -> tuple[RunConfig, Mapping[str, Any]]:
        """Return the first run with the choices `wide`, and its leaves."""
        base = compose((*_replaced(first, wide), *first_pair))
        return base, _leaves(base)

    @cache
    def changes_of(own: KeyValues, pair: KeyValues, wide: KeyValues) -> Mapping[str, Any]:
        """Return path → value of what these choices change in the first run with `wide`."""
        base, flat = base_with(wide)
        if own and own[0][0] in flat and own[0][0] != "pruner":  # a plain key, not a group
            leaves = _leaves(set_key(base, *own[0]))
        else:
            leaves = _leaves(compose((*_replaced(first, (*wide, *own)), *pair)))
        return {path: value for path, value in leaves.items() if value != flat[path]}

    def is_wide(choice: KeyValue) -> bool:
        paths = changes_of((choice,), first_pair, ())
        return "." not in choice[0] and any(path.partition(".")[0] != choice[0] for path in paths)

    def combined(own: KeyValues, pair: KeyValues) -> RunConfig:
        wide = tuple(choice for choice in own if is_wide(choice))
        config, _ = base_with(wide)
        changes = dict(changes_of((), pair, wide))
        for choice in own:
            changes |= changes_of((choice,), first_pair, wide)
        for path, value in changes.items():
            config = _with(config, path, value)
        return config

    return combined


def _replaced(choices: KeyValues, others: KeyValues) -> KeyValues:
    """Return `choices` with the values that `others` give to the same keys."""
    values = dict(others)
    return tuple((key, values.get(key, value)) for key, value in choices)


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
