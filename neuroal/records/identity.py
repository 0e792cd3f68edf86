"""What decides a result, and where it was computed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from neuroal.config import RunConfig
from neuroal.records.schema import SCHEMA_VERSION

WHERE_AND_HOW = ("device", "devices", "offload", "batch", "logger", "out", "save", "data")
"""Keys that say where and how a run works, not what comes of it."""
PACKAGES = ("neuroal", "torch", "transformers", "tokenizers", "numpy", "hydra-core")


def identity(config: RunConfig, fingerprints: Mapping[str, str]) -> str:
    """Digest (16 hex digits) of the configuration that decides the result and of its data."""
    deciding = {k: v for k, v in dataclasses.asdict(config).items() if k not in WHERE_AND_HOW}
    content = {"schema": SCHEMA_VERSION, "config": deciding, "data": dict(fingerprints)}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, commit and device of this process."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout this package is in; None for an installed one."""
    command = ["git", "rev-parse", "HEAD"]
    folder = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
