"""Read constants of this package's modules without importing them."""

from __future__ import annotations

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "neuroal"


@lru_cache(maxsize=256)
def constant(module: str, name: str, cls: str | None = None) -> object:
    """Return the constant that a module of this package, or the body of its class, assigns.

    The module is parsed and not imported, because most modules load torch. None: `name` is not
    assigned there.
    """
    spec = find_spec(module)
    body = ast.parse(Path(spec.origin).read_text()).body if spec and spec.origin else []
    if cls is not None:
        classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == cls]
        body = classes[0].body if classes else []
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value: object = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return value
    return None
