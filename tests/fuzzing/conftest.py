"""Inputs that all tests of this folder read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing.inputs import write_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the inputs."""
    path = tmp_path_factory.mktemp("fuzz")
    write_inputs(path)
    return path
