"""What decides a pruned model, and where it was computed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroal.config import RunConfig
from neuroal.records.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    import torch

DECIDING = (
    "model",
    "pruner",
    "topup",
    "refine",
    "sparsity",
    "rules",
    "calibration",
    "seed",
)
"""Keys that decide the pruned model. All others say where and how a run works, or what is measured
of it: a record grows by the tasks it is started with."""
PACKAGES = ("neuroal", "torch", "transformers", "tokenizers", "numpy", "hydra-core")


def identity(config: RunConfig) -> str:
    """Digest (16 hex digits) of what decides the pruned model, known without loading anything.

    The name a model is printed under decides nothing. A seed of the calibration that is not given
    is `config.seed`. Files that are read (a calibration text, a plan) count by their content.
    """
    deciding = {key: _plain(getattr(config, key)) for key in DECIDING}
    deciding["model"].pop("name")
    calibration = deciding["calibration"]
    if calibration["seed"] is None:
        calibration["seed"] = config.seed
    for part, key in (
        (calibration, "path"),
        (deciding["topup"], "path"),
        (deciding["topup"], "start"),
    ):
        if part.get(key):
            part[key] = _content(part[key])
    content = {"schema": SCHEMA_VERSION, "config": deciding}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """A part of the configuration as a dict of its own (`dataclasses.asdict` is slow)."""
    if dataclasses.is_dataclass(node):
        return dict(vars(node))
    return dict(node) if isinstance(node, Mapping) else node


def _content(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return path  # the run itself will say that it cannot be read


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, commit and device of this process.

    ``float32_products`` is ``highest`` for IEEE float32, ``high`` for TF32 where there is a GPU.
    """
    import torch  # late: it takes seconds, and an identity does not need it

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
    try:
        return version(name)
    except PackageNotFoundError:
        return _uninstalled_version() if name == "neuroal" else None


def _uninstalled_version() -> str | None:
    """Version of this package where it runs from its source folder, without being installed."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    try:
        return str(tomllib.loads(project.read_text())["project"]["version"])
    except (OSError, KeyError):
        return None


@cache
def _commit() -> str | None:
    """Commit of the checkout this package is in; None for an installed one."""
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    folder = Path(__file__).resolve().parents[2]
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    top, commit = found.stdout.splitlines()
    return commit if Path(top).resolve() == folder else None
