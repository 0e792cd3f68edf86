"""The tasks and groups that the installed lm-eval defines, found without importing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

NAMED = re.compile(
    r"^[\"']?(task|group)[\"']?:[ \t]*[\"']?([\w.\-+/ ]+?)[\"']?[ \t]*(?:#.*)?$", re.M
)
"""Line of a definition that names its task or group."""


@dataclass(frozen=True)
class Definition:
    """The file that defines a task or a group of tasks of lm-eval."""

    path: Path
    is_group: bool


def definitions_folder() -> Path:
    """Return the folder of lm-eval's definitions."""
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


@lru_cache(maxsize=256)
def definition_of(name: str) -> Definition | None:
    """Return the definition of the task or group `name`; None if lm-eval has none."""
    for path, kind, defined in _named(name):
        if defined == name:
            return Definition(path, kind == "group")
    return None


@lru_cache(maxsize=1)
def harness_names() -> tuple[str, ...]:
    """Return the names of all tasks and groups."""
    return tuple(sorted({name for _, _, name in _named("")}))


def _named(text: str) -> Iterator[tuple[Path, str, str]]:
    """Yield file, ``task`` or ``group``, and name of the definitions that contain `text`."""
    for path in sorted(definitions_folder().rglob("*.yaml")):
        content = path.read_text(encoding="utf-8")
        if text in content:
            kinds = {kind: name.strip() for kind, name in NAMED.findall(content)}
            kind = "group" if "group" in kinds else "task"
            if kind in kinds:
                yield path, kind, kinds[kind]
