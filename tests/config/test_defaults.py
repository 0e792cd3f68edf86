"""A method has the same defaults in its class as in its YAML, which the command line shows."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
FILES = [path for group in ("pruner", "topup", "refine") for path in (CONF / group).glob("*.yaml")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_the_yaml_of_a_method_lists_all_parameters_with_their_defaults(path: Path) -> None:
    options = yaml.safe_load(path.read_text())
    if path.stem == "none":
        assert options == {"_target_": None}
        return
    module, name = options.pop("_target_").rsplit(".", 1)
    fields = dataclasses.fields(getattr(import_module(module), name))
    assert options == {field.name: field.default for field in fields}
