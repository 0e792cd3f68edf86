"""Fixtures of several tests of experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments.bench_command import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)
