"""What identifies the code of a method: a declared version, or the source of a user's class."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from neuroal.config.constants import PACKAGE, constant
from neuroal.config.former_names import present_target
from neuroal.config.instantiate import locate

INSTALLED = ("site-packages", "dist-packages")


def code_of(group: str, target: str) -> dict[str, object]:
    """Return what identifies the code of the method with import path `target`.

    For a class of this package, this is the number that its attribute ``version`` declares; its
    module is parsed, not imported. For another class, it is a digest of the modules that define it
    and its base classes, and of the modules beside them that these import.
    """
    module, _, name = present_target(target).rpartition(".")
    if module.partition(".")[0] == PACKAGE:
        return {"version": declared_version(module, name)}
    return {"source": _source_digest(locate(group, target))}


def declared_version(module: str, name: str) -> int:
    """Return the ``version`` of class `name` of a module of this package; 1 by default."""
    return int(str(constant(module, "version", name) or 1))


def _source_digest(cls: type) -> str:
    files: dict[str, bytes] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        top = base.__module__.partition(".")[0]
        source = getattr(sys.modules.get(base.__module__), "__file__", None)
        if source and top != PACKAGE and top not in sys.stdlib_module_names:
            _collect(Path(source).resolve(), _root(Path(source).resolve(), base.__module__), files)
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return digest.hexdigest()


def _root(file: Path, module: str) -> Path:
    """Return the folder from which `module` is imported."""
    depth = module.count(".") + (1 if file.name == "__init__.py" else 0)
    return file.parents[depth]


def _collect(file: Path, root: Path, files: dict[str, bytes]) -> None:
    """Add `file` and the modules under `root` that it imports to `files`, by relative path.

    Of installed packages, only the own package of `file` counts.
    """
    name = file.relative_to(root).as_posix()
    if name in files:
        return
    files[name] = file.read_bytes()
    own = root / Path(name).parts[0]
    for imported in _imports(file, root):
        for path in (imported.with_suffix(".py"), imported / "__init__.py"):
            if path.is_file() and (root.name not in INSTALLED or path.is_relative_to(own)):
                _collect(path, root, files)


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """Yield the paths, without suffix, of the modules under `root` that `file` may import."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _parts(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            module = node.module or ""
            yield from _parts(base, module)
            for alias in node.names:
                if alias.name != "*":
                    yield from _parts(base, f"{module}.{alias.name}".lstrip("."))


def _parts(base: Path, module: str) -> Iterator[Path]:
    """Yield the paths of `module` and of the packages that contain it."""
    path = base
    for part in filter(None, module.split(".")):
        path = path / part
        yield path
