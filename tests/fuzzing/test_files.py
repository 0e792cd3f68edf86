"""A run that reads a damaged file ends with exit code 0 or one error line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given

from neuroal.cli import main, tables
from tests.fuzzing.command import call
from tests.fuzzing.damage import damaged
from tests.fuzzing.inputs import READ, command, examples


@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_gives_one_line(name: str, folder: Path) -> None:
    path = folder / name
    original = path.read_bytes()

    @examples(0.3 / len(READ), 4)
    @given(damaged(original))
    def check(content: bytes) -> None:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        path.write_bytes(content)
        outcome = call(main.main, command(*READ[name]), folder)
        assert outcome.problem is None, f"{content[:300]!r}: {outcome.problem}\n{outcome.stderr}"

    try:
        check()
    finally:
        path.write_bytes(original)


def test_a_damaged_record_gives_one_line(folder: Path) -> None:
    shutil.rmtree(folder / "runs", ignore_errors=True)
    tasks = ["task.names=[builtin]", "task.seqlen=16", "task.limit=2"]
    assert call(main.main, command(*tasks), folder).code == 0
    (path,) = (folder / "runs").glob("*.json")
    original = path.read_bytes()

    @examples(0.04, 8)
    @given(damaged(original))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        outcome = call(tables.main, ["paper", "out=runs", "--limited"], folder)
        assert outcome.problem is None, f"{content[:300]!r}: {outcome.problem}\n{outcome.stderr}"

    for content in (original, json.dumps({**json.loads(original), "metrics": None}).encode()):
        path.write_bytes(content)
        outcome = call(tables.main, ["paper", "out=runs", "--limited"], folder)
        assert outcome.problem is None
        assert bool(outcome.code) is (content != original)
    check()
