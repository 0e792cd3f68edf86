"""A stored file that does not match its digest is not used."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from neuroal.files.sealed import read_sealed, write_sealed

DATA = {"ratios": {"0.q": [0.1, 0.7]}, "n": 3}


def test_data_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x", DATA)
    assert read_sealed(tmp_path / "x") == DATA
    assert read_sealed(tmp_path / "none") is None


def test_numbers_that_are_not_finite_are_stored_as_null(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x", {"criterion": [1.0, float("nan")]})
    assert read_sealed(tmp_path / "x") == {"criterion": [1.0, None]}


@pytest.mark.parametrize("change", ["value", "cut", "empty", "list", "binary", "no digest"])
def test_damage_is_reported_and_not_used(
    change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x"
    write_sealed(path, DATA)
    text = path.read_text()
    changed = {
        "value": text.replace("0.7", "0.6"),
        "cut": text[:-9],
        "empty": "",
        "list": "[1]",
        "binary": "",
        "no digest": json.dumps(DATA),
    }
    path.write_text(changed[change])
    if change == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    with caplog.at_level(logging.WARNING, logger="neuroal"):
        assert read_sealed(path) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: damaged; its content is computed again"
    ]
