"""Records are whole or not there, and say what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from neuroal.errors import UserError
from neuroal.pruners.packed import PackedMasks
from neuroal.records.schema import Record
from neuroal.records.store import load_record, prepare_out, save_masks, save_record, write_json


def record() -> Record:
    return Record("abc", {}, {}, {}, {}, {}, {"overall": 0.5}, {}, {"lm": {"value": 1.5}})


def test_a_record_comes_back(tmp_path: Path) -> None:
    assert load_record(save_record(record(), tmp_path)) == record()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 99}', '{"version": 1}'])
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(UserError, match="record"):
        load_record(path)


def test_an_out_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out="):
        prepare_out(tmp_path / "file" / "runs")


def test_masks_are_kept_packed(tmp_path: Path) -> None:
    masks = PackedMasks()
    masks.add("0.q", torch.ones(8, 16, dtype=torch.bool))
    save_masks(masks, tmp_path / "m.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
