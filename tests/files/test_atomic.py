"""JSON files are valid JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from neuroal.files.atomic import write_json


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    data = {"a": [1.5, math.nan, {"b": math.inf}], "c": (-math.inf, "NaN"), "d": True, "e": 2}
    write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    expected = {"a": [1.5, None, {"b": None}], "c": [None, "NaN"], "d": True, "e": 2}
    assert json.loads(text, parse_constant=pytest.fail) == expected
