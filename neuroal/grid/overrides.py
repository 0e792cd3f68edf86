"""Split command-line overrides into those of a grid and those of all its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from neuroal.config import schema
from neuroal.errors import UserError
from neuroal.grid.declaration import PAIR, Declaration


def narrow(declaration: Declaration, parsed: Sequence[Any]) -> tuple[Declaration, list[str]]:
    """Return `declaration` narrowed by overrides, and the overrides that apply to all its runs.

    Args:
        declaration: a grid.
        parsed: overrides of the command line as Hydra parses them (type `Override`).
    """
    narrowing: dict[str, list[str]] = {}
    fixed = []
    for override in parsed:
        key = override.get_key_element()
        if key == "task":
            if override.is_sweep_override():
                line = override.input_line
                raise UserError(f"{line}: a run evaluates all its tasks; list them in task.names")
            narrowing |= _tasks_of(override.get_value_element_as_str())
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise UserError(f"{override.input_line}: list the values, separated by commas")
            narrowing[key] = [str(text) for text in override.sweep_string_iterator()]
        elif key == "task.names":
            narrowing[key] = [str(name) for name in listed(override.value())]
        elif key in declaration.axes or key in ("pruner", *PAIR):
            narrowing[key] = [override.get_value_element_as_str()]
        else:
            fixed.append(str(override.input_line))
    return declaration.narrowed(narrowing), fixed


def _tasks_of(option: str) -> dict[str, list[str]]:
    """Return the narrowing by an option of the group ``task``; none if there is no such option."""
    path = schema.conf_dir() / "task" / f"{option}.yaml"
    return {"task.names": list(OmegaConf.load(path).names)} if path.is_file() else {}


def listed(value: Any) -> list[Any]:
    """Return `value` if it is a list, else a list of it alone."""
    return value if isinstance(value, list) else [value]
