"""Names of methods, models and sparsities: from a configuration back to the options."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from neuroal.config import schema
from neuroal.config.former_names import present_settings, present_target
from neuroal.config.schema import RunConfig


def method_name(group: str, node: Mapping[str, Any] | None) -> str:
    """Return the name of a method: its option and the parameters that differ from its YAML.

    Examples: ``neuroal``, ``neuroal(step=block)``, ``marginal(fast)``, ``none``. If several YAMLs
    name the class, the option with the fewest differences is used. A class without a YAML in
    ``conf/GROUP`` is named by its own name in lower case and all its parameters.
    """
    settings = dict(node or {})
    target = settings.pop("_target_", None)
    if target is None:
        return "none"
    target = present_target(target)
    settings = present_settings(target, settings)
    key = tuple(sorted((name, json.dumps(value)) for name, value in settings.items()))
    return _method_name(schema.conf_dir() / group, target, key)


@lru_cache(maxsize=4096)
def _method_name(folder: Path, target: str, settings: tuple[tuple[str, str], ...]) -> str:
    candidates = []
    for option, node in options_in(folder).items():
        if node.get("_target_") == target:
            defaults = {name: json.dumps(value) for name, value in node.items()}
            differing = [(name, value) for name, value in settings if defaults.get(name) != value]
            candidates.append((len(differing), _with(option, differing)))
    own_name = _with(target.rpartition(".")[2].lower(), settings)
    return min(candidates, default=(0, own_name))[1]


def _with(name: str, settings: Sequence[tuple[str, str]]) -> str:
    """Return `name` with `settings` in brackets; a preset comes first and without its key."""
    presets = [str(json.loads(value)) for key, value in settings if key == "preset"]
    others = [f"{key}={json.loads(value)}" for key, value in settings if key != "preset"]
    listed = ", ".join([*presets, *others])
    return f"{name}({listed})" if listed else name


@lru_cache(maxsize=16)
def options_in(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return option → content of its YAML, for the folder of a group in ``conf``."""
    options = {}
    for path in sorted(folder.rglob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(node, dict)
        content = {str(key): value for key, value in node.items()}
        options[path.relative_to(folder).with_suffix("").as_posix()] = content
    return options


def competitor(config: Mapping[str, Any]) -> str:
    """Return the name of a competitor: the top-up and the refinement, if any.

    Examples: ``owl``, ``uniform+dsnot``, ``neuroal(step=block)``.
    """
    topup = method_name("topup", config["topup"])
    refine = method_name("refine", config["refine"])
    return topup if refine == "none" else f"{topup}+{refine}"


def model_name(config: Mapping[str, Any]) -> str:
    """Return ``model.name`` or, if it is null, the path and revision of the model."""
    model = config["model"]
    revision = f"@{model['revision']}" if model["revision"] else ""
    return str(model["name"] or f"{model['path']}{revision}")


def sparsity_name(config: Mapping[str, Any]) -> str:
    """Return ``70 %``, ``2:4`` (weights kept per group) or ``50 %, N:4`` (N differs by block)."""
    sparsity = config["sparsity"]
    if sparsity["keep"] is not None:
        return f"{sparsity['keep']}:{sparsity['of']}"
    percent = f"{round(100 * sparsity['ratio'], 6):g} %"
    return percent if sparsity["of"] is None else f"{percent}, N:{sparsity['of']}"


def tags_of(config: RunConfig) -> list[str]:
    """Return the names of model, pruner, competitor and sparsity of a run, as tables print them."""
    plain = dataclasses.asdict(config)
    pruner = method_name("pruner", plain["pruner"])
    return [model_name(plain), pruner, competitor(plain), sparsity_name(plain)]
