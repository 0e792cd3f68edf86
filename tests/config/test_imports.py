"""The current folder is searched last, and only for a method that is nowhere else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from neuroal.config.imports import import_module_of


@pytest.fixture(autouse=True)
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def module(name: str, text: str = "VALUE = 1\n") -> str:
    Path(f"{name}.py").write_text(text)
    return name


def test_a_module_of_the_current_folder_is_imported_and_the_folder_comes_last() -> None:
    assert import_module_of(module("methods_of_mine")).VALUE == 1
    assert sys.path[-1] == os.getcwd()
    assert sys.path.count(os.getcwd()) == 1


def test_a_file_of_the_current_folder_replaces_no_other_module() -> None:
    module("colorsys", "raise AssertionError('imported')\n")
    sys.modules.pop("colorsys", None)
    assert import_module_of("colorsys").rgb_to_hsv
    assert os.getcwd() not in sys.path


def test_a_module_that_is_nowhere_leaves_the_path_alone() -> None:
    before = list(sys.path)
    with pytest.raises(ImportError):
        import_module_of("no_such_module.inside")
    assert sys.path == before


def test_an_import_that_fails_inside_a_module_names_what_it_lacks() -> None:
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        import_module_of(module("methods_with_a_gap", "import absent_dependency\n"))
