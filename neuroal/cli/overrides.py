"""Parse the overrides of a command line, and name the remedy where Hydra's grammar misreads one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from neuroal.cli.help import GROUPS, bare_word
from neuroal.config import schema
from neuroal.errors import UserError, first_line

PATHS = ("model.path", "out", "save.model", "save.plan", "calibration.path", "data.root")
"""Keys of files and folders; those of methods end in one of `PATH_ENDINGS`."""
PATH_ENDINGS = ("path", "start", "file", "folder")


def parse(overrides: Sequence[str], multirun: bool = True) -> list[Override]:
    """Parse overrides by Hydra's grammar; raise `UserError` if one is invalid.

    Args:
        overrides: as on the command line.
        multirun: accept several values per override.
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    parsed = []
    for text in overrides:
        key, equals, _ = text.partition("=")
        if not key.lstrip("+~").strip() or not (equals or text.startswith("~")):
            raise UserError(bare_word(text))
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            if quoted := _quoted(parser, text):
                message = f"{text}: has characters that must be quoted; write {quoted}"
                raise UserError(message) from error
            raise UserError(f"'{text}': {first_line(error)}") from error
        except (ValueError, TypeError, RecursionError, OverflowError, LookupError) as error:
            raise UserError(f"'{text}': cannot be read ({first_line(error)})") from error
        override.config_loader = parser.config_loader
        if override.is_sweep_override():
            _check_sweep(parser, override, multirun)
        else:
            _check_value(parser, override)
        parsed.append(override)
    return parsed


def _quoted(parser: OverridesParser, text: str) -> str | None:
    """Return what to type so that the value of `text` is a path; None if its key names no path."""
    key, _, value = text.partition("=")
    name = key.lstrip("+~")
    is_method_file = "." in name and name.rpartition(".")[2] in PATH_ENDINGS
    if name not in PATHS and not is_method_file:
        return None
    if value.startswith("~/"):
        return f'{key}="$HOME{value[1:]}"'  # no shell expands it after a key with a dot
    escaped = value.replace('"', '\\"')
    try:
        override = parser.parse_override(f'{key}="{escaped}"')
    except HydraException:
        return None
    if override.is_sweep_override() or override.value() != value:
        return None
    quoted = f'"{escaped}"'
    return f"{key}={shlex.quote(quoted)}"


def _check_sweep(parser: OverridesParser, override: Override, multirun: bool) -> None:
    """Raise `UserError` for several values without -m, or if they are one path with a comma."""
    text = str(override.input_line)
    quoted = _quoted(parser, text) if "," in text else None
    if quoted and os.path.exists(text.partition("=")[2]):
        raise UserError(f"{text}: is one path with a comma, which must be quoted; write {quoted}")
    if not multirun:
        one_path = f"; if it is one path, write {quoted}" if quoted else ""
        raise UserError(f"{text}: has several values; add -m to run each{one_path}")


def _check_value(parser: OverridesParser, override: Override) -> None:
    """Raise `UserError` if a value has another type than its key needs."""
    text, value = str(override.input_line), override.value()
    key, raw = override.get_key_element().lstrip("+~"), text.partition("=")[2]
    types = {name: str(leaf.type) for name, leaf in schema.leaves()}
    if key in (*GROUPS, "experiment") and isinstance(value, list):
        sweep = f"{'-m ' if len(value) > 1 else ''}{key}={','.join(map(str, value))}"
        remedy = "list the tasks in task.names" if key == "task" else f"write {sweep}"
        raise UserError(f"{text}: takes one option, not a list; {remedy}")
    if types.get(key) == "bool" and _is_number(value) and value not in (0, 1):
        raise UserError(f"{text}: must be true or false")
    if types.get(key) == "list[str]" and isinstance(value, list):
        for item in value:
            _check_item(text, item, raw)
    if types.get(key) == "list[str]" and isinstance(value, str) and "${" not in value:
        raise UserError(f"{text}: must be a list of texts; write {key}={shlex.quote(f'[{raw}]')}")
    if value is None or isinstance(value, str) or str(value) == raw:
        return
    if quoted := _quoted(parser, text):
        raise UserError(f"{text}: is read as {value!r}, not as a path; write {quoted}")
    if types.get(key, "").startswith("str") and not isinstance(value, list | dict):
        quoted = shlex.quote(f'"{raw}"')
        raise UserError(f"{text}: is read as {value!r}, not as text; write {key}={quoted}")


def _check_item(text: str, item: Any, raw: str) -> None:
    """Raise `UserError` unless an item of a list of texts, written as `raw`, is read unchanged."""
    if isinstance(item, list | dict) or item is None:
        raise UserError(f"{text}: must be a list of texts, not of lists, mappings or null")
    if not isinstance(item, str) and str(item) not in raw:
        raise UserError(f"{text}: an item is read as {item!r}, not as text; write it in quotes")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
