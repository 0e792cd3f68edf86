"""Names of what a configuration holds: from import paths and values back to the options' names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from neuroal.config import RunConfig, conf_dir

Settings = tuple[tuple[str, Any], ...]


def method_name(group: str, node: Mapping[str, Any] | None) -> str:
    """Name of a method, as on the command line, with the parameters that differ from its YAML.

    ``neuroal``, ``neuroal(step=block)``, ``none``; a class without a YAML in ``conf/GROUP`` goes by
    its own name in lower case and all its parameters. Where several YAMLs name one class, the one
    with the fewest differences counts.

    Args:
        group: ``pruner``, ``topup`` or ``refine``.
        node: that part of the configuration: ``_target_`` and parameters.
    """
    settings = dict(node or {})
    target = settings.pop("_target_", None)
    if target is None:
        return "none"
    key = tuple(sorted((name, json.dumps(value)) for name, value in settings.items()))
    return _method_name(conf_dir() / group, target, key)


@lru_cache(maxsize=4096)
def _method_name(folder: Path, target: str, given: Settings) -> str:
    best: tuple[int, str] | None = None
    for option, (known, defaults) in _options(folder).items():
        if known == target:
            differing = [(name, value) for name, value in given if defaults.get(name) != value]
            candidate = (len(differing), _with(option, differing))
            best = min(best, candidate) if best else candidate
    return best[1] if best else _with(target.rpartition(".")[2].lower(), list(given))


def _with(name: str, settings: list[tuple[str, str]]) -> str:
    listed = ", ".join(f"{key}={json.loads(value)}" for key, value in settings)
    return f"{name}({listed})" if listed else name


@lru_cache(maxsize=16)
def _options(folder: Path) -> dict[str, tuple[str | None, dict[str, str]]]:
    """Option → its import path, and its parameters as JSON."""
    options = {}
    for path in sorted(folder.rglob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(node, dict)
        target = node.pop("_target_", None)
        values = {str(key): json.dumps(value) for key, value in node.items()}
        options["/".join(path.relative_to(folder).with_suffix("").parts)] = (target, values)
    return options


def competitor(config: Mapping[str, Any]) -> str:
    """What competes in a case: the top-up and, where there is one, the refinement.

    ``owl``, ``uniform+dsnot``, ``neuroal(step=block)``.
    """
    topup = method_name("topup", config["topup"])
    refine = method_name("refine", config["refine"])
    return topup if refine == "none" else f"{topup}+{refine}"


def model_name(config: Mapping[str, Any]) -> str:
    """The name that results are printed under: the model's, else its path and revision."""
    model = config["model"]
    revision = f"@{model['revision']}" if model["revision"] else ""
    return str(model["name"] or f"{model['path']}{revision}")


def sparsity_name(config: Mapping[str, Any]) -> str:
    """``70 %``, ``2:4`` (kept of every M) or ``50 %, N:4`` (each block keeps its own N)."""
    sparsity = config["sparsity"]
    if sparsity["keep"] is not None:
        return f"{sparsity['keep']}:{sparsity['of']}"
    percent = f"{round(100 * sparsity['ratio'], 6):g} %"
    return percent if sparsity["of"] is None else f"{percent}, N:{sparsity['of']}"


def tags_of(config: RunConfig) -> list[str]:
    """What a run is found by, as the tables print it: model, pruner, competitor, sparsity."""
    plain = dataclasses.asdict(config)
    pruner = method_name("pruner", plain["pruner"])
    return [model_name(plain), pruner, competitor(plain), sparsity_name(plain)]
