"""Records are written as a whole or not at all, and are checked when they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from neuroal.errors import UserError
from neuroal.files.atomic import write_bytes, write_json
from neuroal.pruners.packed import PackedMasks
from neuroal.records.schema import Record
from neuroal.records.store import load_record, prepare_out, save_masks, save_record


def record() -> Record:
    return Record("abc", {}, {}, {}, {}, {}, {"overall": 0.5}, {}, {"lm": {"value": 1.5}})


def test_a_saved_record_is_loaded_unchanged(tmp_path: Path) -> None:
    assert load_record(save_record(record(), tmp_path)) == record()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_bytes(tmp_path / "x", b"1")
    assert not list(tmp_path.iterdir())


def test_files_have_default_permissions(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"1")
    (tmp_path / "other").write_bytes(b"1")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 99}', '{"version": 1}'])
def test_an_invalid_record_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(UserError, match="record"):
        load_record(path)


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out="):
        prepare_out(tmp_path / "file" / "runs")


def test_masks_are_saved_in_one_file(tmp_path: Path) -> None:
    masks = PackedMasks()
    masks.add("0.q", torch.ones(8, 16, dtype=torch.bool))
    save_masks(masks, tmp_path / "m.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
