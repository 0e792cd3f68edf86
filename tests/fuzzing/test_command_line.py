"""Any command line ends with exit code 0 or one error line, and no value is read as another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from neuroal.cli import data, grid, main, tables
from neuroal.config import schema
from neuroal.config.schema import RunConfig, value_at
from tests.fuzzing.command import Outcome, call
from tests.fuzzing.inputs import command, examples
from tests.fuzzing.overrides import command_lines, overrides

TYPES = {key: str(leaf.type) for key, leaf in schema.leaves()}
DEFAULTS = {"calibration.search_windows"}
"""Keys whose null is replaced."""


def misread(text: str, config: RunConfig) -> str | None:
    """Return how the value of an override differs from that of `config`; None if it does not."""
    key, _, raw = text.partition("=")
    if key not in TYPES or re.search(r"""["'$\\(]|^\s|\s$""", raw):
        return None  # quoted, an interpolation, or a function of Hydra
    kind, value = TYPES[key], value_at(config, key)
    if raw == "null":
        return None if value is None or key in DEFAULTS else f"null became {value!r}"
    expected: Any
    try:
        if kind == "bool":
            expected = raw.lower() in ("true", "1", "yes", "on", "y")
        elif kind.startswith("int"):
            expected = int(raw)
        elif kind.startswith("float"):
            expected = float(raw)
        elif kind.startswith("str"):
            expected = raw
        else:
            return None
    except ValueError:
        return f"{raw!r} became {value!r}"
    return None if value == expected else f"{raw!r} became {value!r}"


def run(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Call ``neuroal``, which must end well and read the values of `arguments` as they are."""
    configs: list[RunConfig] = []
    prune = main._prune

    def recorded(config: RunConfig, *models: Any) -> None:
        configs.append(config)
        prune(config, *models)

    with monkeypatch.context() as patch:
        patch.setattr(main, "_prune", recorded)
        outcome = call(main.main, arguments, folder)
    assert outcome.problem is None, f"{arguments}: {outcome.problem}\n{outcome.stderr[-2000:]}"
    for config in configs if outcome.code == 0 else ():
        wrong = misread(arguments[-1], config)
        assert wrong is None, f"{arguments}: {wrong}"
    return outcome


def test_no_override_ends_in_a_traceback_or_is_misread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @examples(0.4, 50)
    @given(overrides())
    def check(override: str) -> None:
        run(command(override), folder, monkeypatch)

    check()


def test_no_command_line_ends_in_a_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @examples(0.2, 30)
    @given(command_lines())
    def check(arguments: list[str]) -> None:
        outcome = call(main.main, [*command(), *arguments], folder)
        assert outcome.problem is None, f"{arguments}: {outcome.problem}\n{outcome.stderr[-2000:]}"

    check()


SCRIPTS = {
    "grid": (grid.main, ["status", "experiment=quick", "model=zoo/opt", "pruner=magnitude"]),
    "tables": (tables.main, ["compare"]),
    "data": (data.main, ["list"]),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_command_line_of_the_other_scripts_ends_in_a_traceback(
    script: str, folder: Path
) -> None:
    start, first = SCRIPTS[script]

    @examples(0.02, 8)
    @given(command_lines())
    def check(arguments: list[str]) -> None:
        outcome = call(start, [*first, *arguments], folder)
        assert outcome.problem is None, f"{arguments}: {outcome.problem}\n{outcome.stderr[-2000:]}"

    check()
