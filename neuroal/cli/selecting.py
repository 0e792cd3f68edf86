"""Select records by the overrides of a command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from neuroal.cli.compose import check
from neuroal.config import schema
from neuroal.config.schema import value_at
from neuroal.tables.selection import Selection

ELSEWHERE = (
    "out",
    "experiment",
    "device",
    "devices",
    "offload",
    "batch",
    "logger",
    "save",
    "data",
    "progress",
)
"""Keys that do not select records: location and execution of runs."""
OPTION_SETS = {"model": ("name", "path", "revision"), "calibration": ("name", "path")}
"""Keys that identify an option of a group, if they are not all keys of the group."""


def select(overrides: Sequence[str], limited: bool) -> Selection:
    """Return the selection of records that `overrides` describe.

    A key selects by its value, a group by all values that its option sets. Several values of one
    override are alternatives.
    """
    alternatives, tasks = [], None
    selecting = [override for override in overrides if _key(override)]
    for override in selecting:
        key = _key(override)
        others = [other for other in overrides if other != override and _single(other)]
        configs = [dataclasses.asdict(config) for config in check([*others, override])[0]]
        if key in ("task", "task.names"):
            tasks = frozenset(name for config in configs for name in config["task"]["names"])
        else:
            alternatives.append(tuple(_values(key, config) for config in configs))
    return Selection(tuple(alternatives), tasks, limited=limited, text=f"has {' '.join(selecting)}")


def _key(override: str) -> str:
    """Return the key by which an override selects records, or an empty string if it does not."""
    key = override.partition("=")[0].lstrip("+~").partition("@")[0]
    return "" if re.split("[./]", key)[0] in (*ELSEWHERE, "hydra") else key


def _single(override: str) -> bool:
    """Return whether an override has a single value, a list or mapping included."""
    value = override.partition("=")[2]
    return "," not in value or value.startswith(("[", "{", "'", '"'))


def _values(key: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys and values by which the override of `key` selects records."""
    if not config.get(key) or not (schema.conf_dir() / key).is_dir():
        return {key: value_at(config, key)}
    names = OPTION_SETS.get(key, config[key])
    return {f"{key}.{name}": value for name, value in config[key].items() if name in names}
