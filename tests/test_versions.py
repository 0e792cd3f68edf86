"""A method whose results change gets a new number, which is part of a run's identity."""

from __future__ import annotations

import copy

import pytest

from neuroal.errors import UserError
from neuroal.pipeline import SHARED_VERSION
from neuroal.pruners.wanda import Wanda
from neuroal.topups.uniform import Uniform
from tests import versions

COMMAND = "run python -m tests.versions"


def test_every_method_has_a_result_in_the_file() -> None:
    assert sorted(versions.saved()["options"]) == sorted(versions.options()), COMMAND


def test_the_numbers_of_all_methods_are_those_of_the_file() -> None:
    numbers = {option: versions.numbers(option) for option in versions.options()}
    saved = versions.saved()["options"].items()
    assert numbers == {option: entry["numbers"] for option, entry in saved}, COMMAND


@pytest.mark.parametrize("option", versions.options())
def test_results_change_only_with_their_numbers(option: str) -> None:
    entry = versions.saved()["options"].get(option)
    assert entry is not None, COMMAND
    assert versions.numbers(option) == entry["numbers"], COMMAND
    changed = versions.difference(entry, versions.result(option))
    assert changed is None, f"{changed} changed; raise a number and {COMMAND}"


def test_calibration_windows_change_only_with_the_shared_number() -> None:
    shared = versions.saved()["shared"]
    assert shared["version"] == SHARED_VERSION, COMMAND
    assert shared["windows"] == versions.shared_result(), "raise SHARED_VERSION of pipeline.py"


def test_the_file_is_small() -> None:
    assert versions.PATH.stat().st_size < 200_000


def test_a_changed_result_needs_a_new_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "options", lambda: ["pruner/magnitude"])
    content = versions.saved()
    content["options"]["pruner/magnitude"]["masks"] = content["options"]["pruner/wanda"]["masks"]
    with pytest.raises(UserError, match=r"pruner/magnitude: .* mask entries changed; raise"):
        versions.updated(copy.deepcopy(content))
    monkeypatch.setattr("neuroal.pruners.magnitude.Magnitude.version", 2)
    entry = versions.updated(content)["options"]["pruner/magnitude"]
    assert entry["numbers"]["pruner/magnitude"] == 2
    assert versions.difference(entry, versions.result("pruner/magnitude")) is None


def test_a_number_belongs_to_the_class() -> None:
    class Other(Wanda):
        version = 7

    assert (Wanda.version, Other.version, Uniform.version) == (1, 7, 1)
    assert Other().version == 7
