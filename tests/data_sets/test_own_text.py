"""A user's own text is read as what its name says, or refused in one short line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from neuroal.api import calibration_tokens
from neuroal.cli.compose import composed
from neuroal.data.formats import text_format
from neuroal.data.own_text import read_own_text
from neuroal.data.resolve import find_rows
from neuroal.data.text import calibration_text
from neuroal.errors import UserError
from neuroal.run import run
from tests.rows import write_jsonl, write_parquet

ROWS = [{"text": "One day."}, {"text": "Another day.", "n": 2}]
JOINED = "One day.\n\nAnother day."
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", "jsonl"),
        ("a.JSONL", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.json", "jsonl"),
        ("a.b.Jsonl.GZ", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("c4-train.00000.json.gz", "jsonl"),
        ("a.txt", "text"),
        ("a.TXT", "text"),
        ("README.md", "text"),
        ("jsonl", "text"),
        ("v1.2", "text"),
    ],
)
def test_the_suffix_decides_in_upper_and_lower_case(name: str, expected: str) -> None:
    assert text_format(name) == text_format(Path("folder.parquet") / name) == expected


@pytest.mark.parametrize("name", ["a.parquet", "A.CSV", "a.txt.gz", "a.zip", "a.jsonl.zst", "a.gz"])
def test_other_formats_are_refused_with_the_formats_that_can_be_read(name: str) -> None:
    with pytest.raises(UserError, match=r"calibration\.path=.*\.jsonl\.gz") as raised:
        text_format(name)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.JSONL", LINES),
        ("a.ndjson", LINES),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS, indent=2).encode()),
        ("a.json.GZ", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("a.Jsonl.Gz", gzip.compress(LINES, mtime=0)),
        ("a.txt", JOINED.encode()),
        ("a", JOINED.replace("\n", "\r\n").encode()),
    ],
)
def test_equal_texts_in_every_format_are_one_text(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert read_own_text(path) == JOINED


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "Größe ".encode("latin-1") * 400_000, r"not UTF-8 at byte 2 \(invalid"),
        ("utf16.txt", ("text " * 400_000).encode("utf-16"), r"not UTF-8 at byte 0 \(invalid"),
        ("unmarked.txt", ("text " * 9).encode("utf-16-le"), r"not UTF-8 at byte 1 \(a zero byte"),
        ("latin.jsonl", '{"text": "Größe"}\n'.encode("latin-1"), "row 1 is not JSON .*position 12"),
        ("latin.json", '[{"text": "Größe"}]'.encode("latin-1"), "not UTF-8 at byte 13"),
        ("list.jsonl", json.dumps(ROWS).encode(), 'row 1 has no string in a field "text"'),
        ("pretty.json", b'{\n"text": "one"\n}', "row 1 is not JSON"),
        ("words.json", b'["a", "b"]', 'row 1 has no string in a field "text"'),
        ("number.jsonl", b'{"text": "a"}\n{"text": 7}\n', "row 2 has no string"),
        ("open.json", b'[{"text": "a"}', "cannot be read .*line 1 column"),
        ("plain.jsonl.gz", LINES, "cannot be read .*gzip"),
        ("cut.jsonl.gz", gzip.compress(LINES, mtime=0)[:30], "cannot be read"),
        ("broken.jsonl.gz", gzip.compress(LINES, mtime=0)[:12] + b"\xff" * 40, "cannot be read"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_short_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_own_text(path)
    line = str(raised.value)
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < len(str(path)) + 300


def test_a_parquet_file_by_any_name_is_refused(tmp_path: Path) -> None:
    for name in ("rows.parquet", "rows.txt"):
        path = write_parquet(tmp_path / name, [{"text": "Größe " * 1000}] * 9)
        with pytest.raises(UserError, match="JSON lines with a field") as raised:
            read_own_text(path)
        assert len(str(raised.value)) < len(str(path)) + 300


def test_a_run_refuses_the_file_before_it_loads_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "a.txt.gz", ROWS)
    monkeypatch.setattr("neuroal.run.load_model", lambda *_: pytest.fail("loads a model"))
    with pytest.raises(UserError, match=re.escape(f"calibration.path={path}")):
        run(composed(["calibration=text", f"calibration.path={path}", f"out={tmp_path}/runs"]))


def test_a_damaged_data_set_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c4_sample" / "sample.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(LINES, mtime=0)[:12] + b"\xff" * 40)
    with pytest.raises(UserError, match=r"sample\.jsonl\.gz: cannot be read"):
        list(find_rows("c4_sample", "sample", str(tmp_path)).rows)


def test_a_text_in_place_of_a_name_is_not_repeated() -> None:
    with pytest.raises(UserError, match=r"neither a file .* give texts as a list") as raised:
        calibration_text("A long story.\n" * 100_000, None)
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("tokens", "seqlen"), [(64, 64), (63, 64)])
def test_a_text_that_is_too_short_says_how_many_tokens_are_needed(tokens: int, seqlen: int) -> None:
    def tokenizer(text: str, verbose: bool = False) -> dict[str, list[int]]:
        return {"input_ids": [1] * tokens}

    message = f"has only {tokens} tokens, and needs at least {seqlen + 1}"
    with pytest.raises(UserError, match=message):
        calibration_tokens(["a"], tokenizer, windows=1, seqlen=seqlen)
    assert calibration_tokens(["a"], tokenizer, windows=1, seqlen=tokens - 1).shape == (
        1,
        tokens - 1,
    )
