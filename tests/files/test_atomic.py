"""JSON files are valid JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from neuroal.files import atomic
from neuroal.files.atomic import read_text, replacing, write_bytes, write_json


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    data = {"a": [1.5, math.nan, {"b": math.inf}], "c": (-math.inf, "NaN"), "d": True, "e": 2}
    write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    expected = {"a": [1.5, None, {"b": None}], "c": [None, "NaN"], "d": True, "e": 2}
    assert json.loads(text, parse_constant=pytest.fail) == expected


def test_a_link_in_place_of_a_file_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "target").read_text() == "kept"
    assert not (tmp_path / "x").is_symlink()


def test_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("secret")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        read_text(tmp_path / "x")


def test_a_temporary_file_is_created_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "temporary_path", lambda path: tmp_path / "part")
    (tmp_path / "target").write_text("kept")
    (tmp_path / "part").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "target").read_text() == "kept"


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised, replacing(tmp_path / "x.json"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())
