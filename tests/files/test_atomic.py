"""JSON files are valid JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroal.files import atomic
from neuroal.files.atomic import (
    JsonTexts,
    finite,
    json_text,
    read_text,
    replacing,
    write_bytes,
    write_json,
)


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    data = {"a": [1.5, math.nan, {"b": math.inf}], "c": (-math.inf, "NaN"), "d": True, "e": 2}
    write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    expected = {"a": [1.5, None, {"b": None}], "c": [None, "NaN"], "d": True, "e": 2}
    assert json.loads(text, parse_constant=pytest.fail) == expected


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), NESTED))
def test_a_json_text_is_that_of_the_standard_library(data: dict[str, Any]) -> None:
    assert json_text(data) == json.dumps(finite(data), indent=1, sort_keys=True)


def test_only_entries_that_changed_are_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []
    real = atomic._entry

    def entry(value: object) -> str:
        encoded.append(value)
        return real(value)

    monkeypatch.setattr(atomic, "_entry", entry)
    texts, plan = JsonTexts(), {"ratios": [0.5]}
    assert json.loads(texts.of({"plan": plan, "metrics": {}})) == {"plan": plan, "metrics": {}}
    new = {"plan": plan, "metrics": {"rte": 1}, "more": None}
    assert texts.of(new) == json_text(new)
    assert encoded.count(plan) == 2  # the first by `texts`, the other by `json_text`
    encoded.clear()
    texts.of(new | {"metrics": {"rte": 2}})
    assert encoded == [{"rte": 2}]
    equal = {"ratios": [0.5]}
    texts.of({"plan": equal})
    assert encoded[-1] is equal


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
