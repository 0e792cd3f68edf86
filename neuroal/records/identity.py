"""Identity of a run, from the settings that determine the pruned model, and its environment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroal import __version__
from neuroal.config.constants import constant
from neuroal.config.instantiate import locate
from neuroal.config.schema import RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.config.sources import code_of
from neuroal.data.formats import text_format
from neuroal.files.digest import digest_of_file, is_file
from neuroal.records.contents import Contents
from neuroal.records.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
DECIDING = ("model", "pruner", "topup", "refine", "sparsity", "rules", "calibration", "seed")
"""Keys that determine the pruned model. All other keys control where and how a run computes, or
which tasks it evaluates; a later run adds its tasks to the same record."""
METHODS = ("pruner", "topup", "refine")
LOCATION = ("source", "path", "revision")
"""Keys of the model that do not count where its content can be read."""
LATER_KEYS = ("bos",)
"""Keys of the calibration that version 0.1 did not have."""
PACKAGES = ("neuroal", "torch", "transformers", "tokenizers", "numpy", "hydra-core")


def identity_of(config: RunConfig, contents: Contents | None = None) -> str:
    """Return a digest (16 hex digits) of what determines the pruned model.

    Loads no model. The digest covers the content of the files that the run reads (model,
    calibration text, files of a method), not their paths; the version of each method, or the source
    of a user's own; and the remaining settings. It uses `config.seed` for a calibration seed, and
    the top-up's own number of search windows, where they are not set. A model or text that cannot
    be read here counts by the content that the last run in ``out`` has read, or else by its name.

    Args:
        config: configuration of the run.
        contents: contents that are already read, for many runs; None: read them.
    """
    contents, deciding = contents or Contents(), _deciding(config)
    model, calibration = deciding["model"], deciding["calibration"]
    content = contents.model(config)
    for key in LOCATION if content else ():
        model.pop(key)
    model["content"] = content
    calibration["content"] = contents.calibration(config)
    if calibration["path"]:
        text = calibration["path"]
        calibration["path"] = f"{text_format(text)} {content_of_file(text)}"
    targets = {group: (deciding[group] or {}).get("_target_") for group in METHODS}
    methods = {group: code_of(group, str(target)) for group, target in targets.items() if target}
    shared = constant("neuroal.pipeline", "SHARED_VERSION")
    versions = {"schema": SCHEMA_VERSION, "shared": shared, "methods": methods}
    return digest_of({**versions, "config": deciding})


def former_identity_of(config: RunConfig) -> str:
    """Return the identity by which version 0.1 named the record of `config`."""
    deciding = _deciding(config)
    calibration = deciding["calibration"]
    for key in LATER_KEYS:
        calibration.pop(key, None)
    if calibration["path"]:
        calibration["path"] = content_of_file(calibration["path"])
    return digest_of({"schema": 1, "config": deciding})


def _deciding(config: RunConfig) -> dict[str, Any]:
    """Return a copy of the settings that determine the pruned model, with defaults resolved."""
    deciding = {key: _plain(getattr(config, key)) for key in DECIDING}
    deciding["model"].pop("name")
    calibration = deciding["calibration"]
    if calibration["seed"] is None:
        calibration["seed"] = config.seed
    calibration["search_windows"] = search_windows(config)
    for group in METHODS:
        deciding[group] = with_file_contents(group, deciding[group])
    return deciding


def digest_of(content: Mapping[str, Any]) -> str:
    """Return a digest (16 hex digits) of JSON data, which does not depend on the order of keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_of_file(path: str) -> str:
    """Return the SHA-256 (hex) of a file, or `path` if it cannot be read."""
    try:
        return digest_of_file(path)
    except OSError:
        return path  # the run reports the error when it reads the file


def with_file_contents(group: str, node: Any) -> Any:
    """Return the settings of a method, with the files that it declares replaced by their digests.

    Imports the class of the method only if a setting names a file, because the import loads torch.
    """
    if not isinstance(node, dict):
        return node
    paths = {key for key, value in node.items() if isinstance(value, str) and is_file(value)}
    if not paths or not node.get("_target_"):
        return node
    declared = paths & getattr(locate(group, node["_target_"]), "file_parameters", frozenset())
    return {k: content_of_file(value) if k in declared else value for k, value in node.items()}


def _plain(node: Any) -> Any:
    """Return a part of the configuration as a new dict (`dataclasses.asdict` is slow)."""
    if dataclasses.is_dataclass(node):
        return dict(vars(node))
    return dict(node) if isinstance(node, Mapping) else node


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions, commit and device of this process.

    ``float32_products`` is ``highest`` for IEEE float32, ``high`` for TF32 where there is a GPU.
    """
    import torch  # slow to import, and an identity does not need it

    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "float32_products": torch.get_float32_matmul_precision(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
    }


def _version(name: str) -> str | None:
    if name == "neuroal":
        return __version__  # also where the package runs from its source folder
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """Return the commit of the checkout of this package; None if the package is installed."""
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    folder = Path(__file__).resolve().parents[2]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    top, commit = result.stdout.splitlines()
    return commit if Path(top).resolve() == folder else None


def note_former_record(config: RunConfig) -> None:
    """Log that a record of version 0.1 does not count as this run, if there is one."""
    path = Path(config.out) / f"{former_identity_of(config)}.json"
    if path.exists():
        log.info("%s: written by version 0.1, does not count as finished; tables read it", path)
