"""Versions that the tests have not run with are named, and the range is the same everywhere."""

from __future__ import annotations

import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import neuroal
from neuroal.config.schema import ModelConfig
from neuroal.models import versions
from neuroal.models.load import load_model
from neuroal.models.versions import TESTED, warn_of_untested_versions
from tests.small_models import random_tokens, tiny_llama

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the versions that packages seem to have, which a test may change."""
    numbers = {"torch": "2.12.1+cu130", "transformers": "5.20.0"}
    monkeypatch.setattr(versions, "version", numbers.__getitem__)
    return numbers


def messages(action: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught if "not tested" in str(warning.message)]


@pytest.mark.parametrize("torch_version", ["2.11.0", "2.12.0+cpu", "2.13.9"])
def test_versions_of_the_range_give_no_warning(
    installed: dict[str, str], torch_version: str
) -> None:
    installed["torch"] = torch_version
    assert messages(warn_of_untested_versions) == []


@pytest.mark.parametrize("torch_version", ["2.10.1", "2.14.0a0+git1234", "3.0.0", "1.13.1"])
def test_a_version_outside_of_the_range_is_named_with_the_remedy(
    installed: dict[str, str], torch_version: str
) -> None:
    installed["torch"] = torch_version
    assert messages(warn_of_untested_versions) == [
        f"torch {torch_version} is not tested (tested: 2.11 to 2.13), so results may differ; "
        "pip install 'torch>=2.11,<2.14'"
    ]


def test_commands_and_python_calls_warn(installed: dict[str, str]) -> None:
    installed["transformers"] = "5.24.0"
    config = ModelConfig(source="zoo", path="llama")
    model, tokens = tiny_llama().model, random_tokens(2, 16)
    load = messages(lambda: load_model(config, torch.device("cpu")))
    prune = messages(lambda: neuroal.prune(model, tokens, topup="uniform"))
    assert len(load) == len(prune) == 1
    assert load[0].startswith("transformers 5.24.0 is not tested (tested: 5.17 to 5.23)")


def test_the_tested_range_is_that_of_the_package_and_of_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    for package, ((major, oldest), (_, newest)) in TESTED.items():
        assert f"{package}>={major}.{oldest},<{major}.{newest + 1}" in project["dependencies"]
        name = {"torch": "PyTorch"}.get(package, package)
        assert re.search(rf"{name} {major}\.{oldest} to\s{major}\.{newest}", readme)
