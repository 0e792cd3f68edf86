"""The rules of the package's structure, read from its imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "neuroal"
LAYERS = (
    ("errors", "zoo", "__version__"),
    ("config.former_names", "config.schema", "files", "tracking.progress"),
    ("kernels", "placement", "data", "parallel.peers"),
    ("models",),
    ("parallel",),
    ("sparsity",),
    ("execution",),
    ("pruners", "evaluation"),
    ("config",),
    ("search", "gradients"),
    ("topups", "refine"),
    ("pipeline",),
    ("records",),
    ("tracking",),
    ("run",),
    ("api", "grid", "tables"),
    ("cli",),
)
"""From bottom to top. A module belongs to the longest prefix of its name; it imports from lower
layers and from its own folder."""
TOP = {"__init__.py", "__main__.py", "api.py", "run.py", "pipeline.py", "errors.py", "py.typed"}
METHODS = {
    "pruners": {"magnitude", "wanda", "multiflow", "sparsegpt", "alps"},
    "topups": {
        *("uniform", "neuroal", "owl", "alpha", "dlp", "atp", "fisher", "marginal", "evolve"),
        "plan_file",
    },
    "refine": {"dsnot"},
}
ONLY_IN = {
    "hydra": ("cli", "config"),
    "wandb": ("tracking",),
    "mlflow": ("tracking",),
    "pandas": ("tables",),
    "matplotlib": ("tables",),
}
"""Package → folders that may import it."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield dotted name (without ``neuroal.``) and syntax tree of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> tuple[int, str]:
    """Return the layer of a module, and the prefix that puts it there."""
    prefixes = {prefix: number for number, group in enumerate(LAYERS) for prefix in group}
    fitting = [p for p in prefixes if name == p or name.startswith(f"{p}.")]
    assert fitting, f"neuroal.{name} belongs to no layer"
    prefix = max(fitting, key=len)
    return prefixes[prefix], prefix


def is_entry_point(name: str) -> bool:
    return name.rpartition(".")[2] in ("__init__", "__main__")


def test_only_what_a_user_imports_or_starts_is_at_the_top() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == TOP


def test_imports_point_one_way() -> None:
    wrong = []
    for name, tree in modules():
        if is_entry_point(name):
            continue
        number, prefix = layer(name)
        for imported in imports(tree):
            if not imported.startswith("neuroal."):
                continue
            target, target_prefix = layer(imported.removeprefix("neuroal."))
            same_folder = target_prefix.partition(".")[0] == prefix.partition(".")[0]
            if target > number or (target == number and not same_folder):
                wrong.append(f"{name} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_topups_pruners_and_refinements_are_the_methods_of_the_readme() -> None:
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    for folder, names in METHODS.items():
        options = {
            path.stem
            for path in (PACKAGE.parent / "conf").glob("*/*.yaml")
            if path.parent.name == folder.removesuffix("s") and path.stem != "none"
        }
        assert {name.removesuffix("_file") for name in names} == options
        assert all(f"`{option}`" in readme for option in options)
    files = {path.stem for path in (PACKAGE / "topups").glob("*.py")} - {"__init__", "base"}
    assert files == METHODS["topups"]
    for folder in ("pruners", "refine"):
        assert {path.stem for path in (PACKAGE / folder).glob("*.py")} >= METHODS[folder]


@pytest.mark.parametrize("package", ONLY_IN)
def test_heavy_packages_have_one_home(package: str) -> None:
    users = {
        name.partition(".")[0]
        for name, tree in modules()
        if any(imported.partition(".")[0] == package for imported in imports(tree))
    }
    assert users <= set(ONLY_IN[package])


def test_production_code_mocks_nothing() -> None:
    assert not [name for name, tree in modules() if any("mock" in i for i in imports(tree))]


def test_weights_are_read_and_set_through_prunable_linears() -> None:
    """Only `neuroal.models` and `neuroal.placement` touch ``.module.weight``."""
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\.module\.weight\b", path.read_text(encoding="utf-8"))
    }
    assert users <= {"models", "placement"}


def test_the_plugin_imports_the_grid_alone() -> None:
    plugin = PACKAGE.parent / "hydra_plugins" / "neuroal_grid" / "sweeper.py"
    names = [i for i in imports(ast.parse(plugin.read_text())) if i.startswith("neuroal")]
    assert names
    assert all(name.startswith("neuroal.grid.") for name in names)
