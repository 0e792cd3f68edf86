"""The code of a method identifies it: a declared version, or the source of a user's class."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from neuroal.config import schema
from neuroal.config.instantiate import locate
from neuroal.config.sources import code_of, declared_version

METHOD = """
from neuroal.pruners.magnitude import Magnitude
import scoring_helpers
from own_package.deep import part

class Mine(Magnitude):
    pass
"""
Digest = Callable[[], dict[str, object]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the import path with a method and the modules that it imports."""
    package = tmp_path / "own_package" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .more import x\n")
    (package / "part.py").write_text("from ..base import y\n")
    (package / "more.py").write_text("x = 1\n")
    (tmp_path / "own_package" / "base.py").write_text("y = 1\n")
    (tmp_path / "scoring_helpers.py").write_text("z = 1\n")
    (tmp_path / "unrelated.py").write_text("z = 1\n")
    (tmp_path / "my_pruner.py").write_text(METHOD)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


@pytest.fixture
def digest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Return a function that computes the digest of the method as a new process does."""

    def compute() -> dict[str, object]:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("my_pruner", "scoring_helpers", "own_package"):
                monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        return code_of("pruner", "my_pruner.Mine")

    return compute


CHANGED = [
    "my_pruner.py",
    "scoring_helpers.py",
    "own_package/__init__.py",
    "own_package/base.py",
    "own_package/deep/more.py",
    "own_package/deep/part.py",
]


@pytest.mark.parametrize("name", CHANGED)
def test_another_source_of_a_users_method_or_its_imports_is_another_method(
    name: str, folder: Path, digest: Digest
) -> None:
    before = digest()
    assert digest() == before
    with (folder / name).open("a") as file:
        file.write("# changed\n")
    assert digest() != before


def test_modules_that_a_method_does_not_import_do_not_count(folder: Path, digest: Digest) -> None:
    before = digest()
    (folder / "unrelated.py").write_text("z = 2\n")
    assert digest() == before


def test_a_base_class_in_another_folder_counts(
    folder: Path, digest: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    base = "from neuroal.pruners.magnitude import Magnitude\nclass Base(Magnitude):\n    a = 1\n"
    (other / "base_of_mine.py").write_text(base)
    (folder / "my_pruner.py").write_text("from base_of_mine import Base\nclass Mine(Base): ...\n")
    before = digest()
    (other / "base_of_mine.py").write_text(base.replace("1", "2"))
    monkeypatch.delitem(sys.modules, "base_of_mine")
    assert digest() != before


def test_a_method_of_the_package_counts_by_its_declared_version() -> None:
    assert code_of("pruner", "neuroal.pruners.wanda.Wanda").keys() == {"version"}
    for group in ("pruner", "topup", "refine"):
        for path in sorted((schema.conf_dir() / group).glob("*.yaml")):
            target = yaml.safe_load(path.read_text()).get("_target_")
            if target:
                module, _, name = target.rpartition(".")
                declared = getattr(locate(group, target), "version", 1)
                assert declared_version(module, name) == declared
