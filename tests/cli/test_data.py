"""``neuroal-data`` fetches, checks and lists data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroal.cli.data import data_command
from neuroal.data import hub
from neuroal.data.resolve import find_rows
from neuroal.errors import UserError
from tests.rows import HELLASWAG, RTE, cached_repository, write_jsonl, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    hub.unreachable.cache_clear()
    yield folder
    hub.unreachable.cache_clear()


def test_fetch_fills_a_folder_that_replaces_the_cache(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = cached_repository(cache, "Rowan/hellaswag") / "data"
    write_parquet(parts / "validation-00000-of-00002.parquet", HELLASWAG[:3])
    write_parquet(parts / "validation-00001-of-00002.parquet", HELLASWAG[3:])
    write_parquet(cached_repository(cache, "nyu-mll/glue") / "rte/validation-0.parquet", RTE)
    root = str(tmp_path / "data")
    assert data_command(["fetch", "hellaswag", "rte/validation", "--root", root]) == 0
    cache.rename(tmp_path / "gone")
    assert list(find_rows("hellaswag", "validation", root).rows) == HELLASWAG
    assert list(find_rows("rte", "validation", root).rows) == RTE
    assert f"hellaswag/validation: {len(HELLASWAG)} rows" in capsys.readouterr().out
    assert data_command(["check", "hellaswag", "rte", "--root", root]) == 0


def test_check_reports_missing_and_damaged_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "glue-rte" / "validation.jsonl", RTE)
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "hellaswag" / "validation.jsonl").write_text('{"ind": 0,\n')
    assert data_command(["check", "rte", "hellaswag", "boolq", "--root", str(tmp_path)]) == 1
    lines = capsys.readouterr().out
    assert str(len(RTE)) in lines
    assert "damaged" in lines
    assert "missing" in lines


def test_list_names_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_command(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("wikitext2", "ptb", "c4_sample", "hellaswag"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch"], "needs a data set"),
        (["fetch", "pbt"], "did you mean 'ptb'"),
        (["fetch", "ptb/valid"], "did you mean 'validation'"),
        (["fetch", "ptb"], "HF_HUB_OFFLINE"),
        (["fetch", "c4_sample"], "not on the hub"),
        (["load", "ptb"], "invalid choice"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        data_command(arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
