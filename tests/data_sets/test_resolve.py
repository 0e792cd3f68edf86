"""Rows are read from a local folder, the cache or the hub, in this order, with their origin."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroal.data import hub
from neuroal.data.resolve import find_rows
from neuroal.data.sets import SETS
from neuroal.errors import UserError
from neuroal.evaluation.task_table import TASKS, ZERO_SHOT
from tests.rows import ARC, HELLASWAG, RTE, cached_repository, write_jsonl, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty Hugging Face cache, without a cached answer about the hub."""
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    hub.unreachable.cache_clear()
    yield folder
    hub.unreachable.cache_clear()


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl", "parquet"])
def test_a_local_folder_is_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "ai2_arc-ARC-Easy" / f"test.{suffix}"
    (write_parquet if suffix == "parquet" else write_jsonl)(path, ARC)
    data = find_rows("arc_easy", "test", str(tmp_path))
    assert list(data.rows) == ARC
    assert data.origin == str(path.parent)
    write_jsonl(tmp_path / "other" / "ai2_arc-ARC-Easy" / "test.jsonl", ARC)
    other = find_rows("arc_easy", "test", str(tmp_path / "other"))
    assert other.fingerprint == data.fingerprint


def test_a_copy_of_a_hub_repository_is_a_local_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "hellaswag/data/validation-00000-of-00001.parquet", HELLASWAG)
    assert list(find_rows("hellaswag", "validation", str(tmp_path)).rows) == HELLASWAG


def test_c4_shards_are_read_under_their_hub_names(tmp_path: Path) -> None:
    for split, name in (("train", "00000-of-01024"), ("validation", "00000-of-00008")):
        rows = [{"text": f"{split} {i}", "url": "u", "timestamp": "t"} for i in range(3)]
        write_jsonl(tmp_path / f"c4/en/c4-{split}.{name}.json.gz", rows)
        assert list(find_rows("c4", split, str(tmp_path)).rows) == rows


def test_the_cache_is_read_without_network_and_names_the_commit(cache: Path) -> None:
    snapshot = cached_repository(cache, "Rowan/hellaswag")
    write_parquet(snapshot / "data/validation-00000-of-00002.parquet", HELLASWAG[:2])
    write_parquet(snapshot / "data/validation-00001-of-00002.parquet", HELLASWAG[2:])
    data = find_rows("hellaswag", "validation", None)
    assert list(data.rows) == HELLASWAG
    assert data.origin == f"Rowan/hellaswag@{snapshot.name}"


def test_ptb_is_read_from_the_parquet_branch(cache: Path) -> None:
    snapshot = cached_repository(cache, "ptb-text-only/ptb_text_only", "refs/convert/parquet")
    rows = [{"sentence": "no it was n't black monday"}]
    write_parquet(snapshot / "penn_treebank/train/0000.parquet", rows)
    assert list(find_rows("ptb", "train", None).rows) == rows


def test_a_local_folder_precedes_the_cache(tmp_path: Path, cache: Path) -> None:
    write_parquet(cached_repository(cache, "nyu-mll/glue") / "rte/validation-0.parquet", RTE)
    write_jsonl(tmp_path / "glue-rte" / "validation.jsonl", RTE[:1])
    assert len(find_rows("rte", "validation", str(tmp_path)).rows) == 1
    assert len(find_rows("rte", "validation", None).rows) == len(RTE)


def test_missing_rows_are_one_line_with_places_and_remedy(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "wikitext-2-raw-v1" / "test.jsonl.gz", [{"text": "x"}])
    start = time.perf_counter()
    with pytest.raises(UserError) as raised:
        find_rows("wikitext2", "train", str(tmp_path))
    message = str(raised.value)
    assert time.perf_counter() - start < 5
    assert "\n" not in message
    assert f"no wikitext-2-raw-v1/train.jsonl.gz in data.root={tmp_path} (there: test)" in message
    assert "HF_HUB_OFFLINE=1" in message
    assert f"neuroal-data fetch wikitext2 --root {tmp_path}" in message


def test_the_sample_does_not_replace_c4(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c4_sample" / "sample.jsonl.gz", [{"text": "x"}])
    with pytest.raises(UserError, match="data set c4, split validation"):
        find_rows("c4", "validation", str(tmp_path))


def test_a_set_that_is_not_on_the_hub_needs_a_folder() -> None:
    with pytest.raises(UserError, match=r"not on the hub; give data\.root=FOLDER"):
        find_rows("c4_sample", "sample", None)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "glue-rte" / "validation.jsonl.gz"
    write_jsonl(path, RTE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"validation\.jsonl\.gz: cannot be read"):
        list(find_rows("rte", "validation", str(tmp_path)).rows)


def test_zero_shot_sets_use_the_repository_of_lm_evals_task() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    from neuroal.evaluation.zero_shot import DEFINITIONS

    for name in ZERO_SHOT:
        definition = load_yaml(DEFINITIONS / str(TASKS[name].harness))
        assert definition["dataset_path"] == SETS[name].repo
        config = definition.get("dataset_name") or "data"
        assert all(pattern.startswith(f"{config}/") for pattern in SETS[name].files.values())


class TestTheHub:
    """A check takes seconds at most."""

    @pytest.fixture(autouse=True)
    def no_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)

    def test_a_refused_connection_is_unreachable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        start = time.perf_counter()
        assert "127.0.0.1" in str(hub.unreachable())
        assert time.perf_counter() - start < hub.TIMEOUT + 1

    def test_a_proxy_is_contacted_instead_of_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            port = proxy.getsockname()[1]
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
            assert hub.unreachable() is None
