"""The command that repeats a run, from its configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from neuroal.config import schema
from neuroal.config.former_names import present_settings, present_target

GROUPS = ("model", "pruner", "topup", "refine", "sparsity", "calibration", "task")
KEYS = ("rules", "seed", "data.root", "save.model", "save.format")
"""Keys outside of groups that decide the result, or what is saved."""
TYPED = {
    "model": schema.ModelConfig,
    "sparsity": schema.SparsityConfig,
    "calibration": schema.CalibrationConfig,
    "task": schema.TaskConfig,
}


def command_of(config: Mapping[str, Any]) -> str:
    """Return the shortest ``neuroal …`` that composes `config`, the configuration of a record.

    Leaves out what does not change a result: device, batch size, logger and folder of records.
    """
    overrides = [override for group in GROUPS for override in _of_group(group, config[group])]
    defaults = OmegaConf.load(schema.conf_dir() / "config.yaml")
    for key in KEYS:
        value = schema.value_at(config, key) if _has(config, key) else None
        if value is not None and value != OmegaConf.select(defaults, key):
            overrides.append(f"{key}={_text(value)}")
    return " ".join(["neuroal", *map(shlex.quote, overrides)])


def _of_group(group: str, node: Mapping[str, Any] | None) -> list[str]:
    """Return the option of a group that needs the fewest further overrides, and these."""
    settings = dict(node or {"_target_": None})
    if settings.get("_target_"):
        target = present_target(settings.pop("_target_"))
        settings = {"_target_": target, **present_settings(target, settings)}
    candidates = [
        (len(differing), option, differing)
        for option, defaults in _options(group)
        if defaults.get("_target_") == settings.get("_target_")
        and (differing := {k: v for k, v in settings.items() if defaults.get(k) != v}) is not None
    ]
    if not candidates:  # a method of the user's own
        return [f"++{group}.{key}={_text(value)}" for key, value in settings.items()]
    _, option, differing = min(candidates, key=lambda candidate: candidate[:2])
    return [f"{group}={option}", *(f"{group}.{k}={_text(v)}" for k, v in differing.items())]


def _options(group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of every option of a group."""
    folder = schema.conf_dir() / group
    typed: Any = TYPED.get(group)
    defaults = OmegaConf.to_container(OmegaConf.structured(typed)) if typed else {}
    assert isinstance(defaults, dict)
    for path in sorted(folder.rglob("*.yaml")):
        own = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(own, dict)
        yield path.relative_to(folder).with_suffix("").as_posix(), {**defaults, **own}  # type: ignore[dict-item]


def _has(config: Mapping[str, Any], dotted: str) -> bool:
    node: Any = config
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _text(value: Any) -> str:
    """Return `value` as Hydra reads it in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not (value and all(c.isalnum() or c in "_-./:" for c in value)):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
