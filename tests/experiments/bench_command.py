"""The command line of `experiments/benchmark.py`, as tests call it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import benchmark


class Bench:
    """Calls the command line, with its files in a folder of the test."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder / "results", patch

    def __call__(self, *options: str) -> dict[str, dict[str, Any]]:
        """Call the command line; return all measurements."""
        command = ["benchmark.py", *options, "--results", str(self.folder)]
        self._patch.setattr(sys, "argv", command)
        benchmark.main()
        return {path.stem: json.loads(path.read_text()) for path in self.folder.glob("*.json")}

    def table(self) -> list[str]:
        self("table")
        return (self.folder.parent / "results.md").read_text().splitlines()
