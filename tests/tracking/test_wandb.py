"""W&B receives a run, as its offline files show, and its errors never cost a result."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from neuroal.cli.compose import composed
from neuroal.errors import UserError
from neuroal.records.schema import Record
from neuroal.records.store import load_record
from neuroal.run import run
from neuroal.tracking.wandb import WandbTracker
from tests.tracking import offline_files
from tests.tracking.small import SMALL

pytestmark = pytest.mark.xdist_group("wandb")  # many tests read the same runs
KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB = ["logger=wandb", "logger.group=night", "logger.tags=[first]", *SMALL]


class Tracked(NamedTuple):
    """First record of a run, its path, and the W&B files of each start that had work to do."""

    record: Record
    path: Path
    files: list[Path]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Start a run, resume it with more windows, and start it again with nothing left to do."""
    out = tmp_path_factory.mktemp("tracked")
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        for limit in (2, 3, 3):
            record, path = run(composed([*WANDB, f"task.limit={limit}", f"out={out}"]))
            records.append(record)
            time.sleep(1)  # W&B names its folders by the second
    files = sorted((out / "wandb").glob("offline-run-*/run-*.wandb"))
    return Tracked(records[0], path, files)


@pytest.fixture(scope="module")
def logged(tracked: Tracked) -> list[Any]:
    return offline_files.records(tracked.files[0])


def test_the_run_has_project_group_tags_and_config(tracked: Tracked, logged: list[Any]) -> None:
    described = offline_files.run_of(logged)
    assert described.project == "neuroal"
    assert described.run_group == "night"
    competitor = "neuroal(block_candidates=[0.05, 0.15], row_candidates=[0.0])"
    assert list(described.tags) == ["zoo/llama", "wanda", competitor, "70 %", "first"]
    configured = offline_files.config(logged)
    assert configured["calibration"]["seqlen"] == 32
    assert configured["sparsity"]["ratio"] == 0.7


def test_methods_have_short_names_and_versions_are_in_the_config(
    tracked: Tracked, logged: list[Any]
) -> None:
    configured = offline_files.config(logged)
    names = [configured[group] for group in ("pruner", "topup", "refine")]
    assert names == [
        "wanda",
        "neuroal(block_candidates=[0.05, 0.15], row_candidates=[0.0])",
        "none",
    ]
    assert configured["parameters"]["topup"]["block_candidates"] == [0.05, 0.15]
    assert configured["environment"] == tracked.record.environment
    described = offline_files.run_of(logged)
    assert described.job_type == "prune"
    assert described.display_name.endswith("70 % seed 0")


def test_the_x_axis_of_a_search_is_the_candidate(logged: list[Any]) -> None:
    assert offline_files.axes(logged)["search blocks/*"] == "search blocks/candidate"


def test_results_are_a_table_with_pruned_by_dense(tracked: Tracked, logged: list[Any]) -> None:
    figures = tracked.record.metrics["builtin"]
    dense, pruned = figures["dense"]["value"], figures["pruned"]["value"]
    folder = tracked.files[0].parent / "files" / "media" / "table"
    table = json.loads(next(folder.glob("results*")).read_text())
    assert table["columns"] == ["task", "figure", "dense", "pruned", "pruned / dense"]
    assert table["data"] == [["builtin", "perplexity", dense, pruned, pruned / dense]]
    summary = offline_files.summary(logged)
    assert summary["builtin/pruned_by_dense"] == pytest.approx(pruned / dense)
    best = min(tracked.record.plan["report"]["criterion_block"])
    assert summary["plan/criterion_block"] == pytest.approx(best)


def test_the_criterion_of_each_candidate_is_logged(tracked: Tracked, logged: list[Any]) -> None:
    rows = [row for row in offline_files.history(logged) if "search blocks/criterion" in row]
    assert [row["search blocks/candidate"] for row in rows] == [0.05, 0.15]
    assert [row["search blocks/done"] for row in rows] == [1, 2]
    criteria = [row["search blocks/criterion"] for row in rows]
    assert criteria == tracked.record.plan["report"]["criterion_block"]


def test_the_summary_has_metrics_and_seconds(tracked: Tracked, logged: list[Any]) -> None:
    summary, record = offline_files.summary(logged), tracked.record
    pruned = record.metrics["builtin"]["pruned"]["value"]
    assert summary["builtin/pruned/value"] == pytest.approx(pruned)
    assert summary["sparsity"] == record.sparsity["overall"]
    assert summary["plan/lambda_block"] == record.plan["report"]["lambda_block"]
    assert {"seconds/allocate", "seconds/prune", "seconds/evaluate"} <= summary.keys()


def test_density_by_block_is_a_chart(tracked: Tracked, logged: list[Any]) -> None:
    table = next((tracked.files[0].parent / "files" / "media" / "table").glob("density_by_block*"))
    rows = json.loads(table.read_text())["data"]
    assert [block for block, _ in rows] == list(range(8))
    assert sum(density for _, density in rows) / 8 == pytest.approx(0.3, abs=1e-3)
    last = offline_files.history(logged)[-1]
    assert last["density_by_block_table._type"] == "table-file"


def test_the_record_is_an_artifact(tracked: Tracked, logged: list[Any]) -> None:
    names = [
        record.request.log_artifact.artifact.name or record.artifact.name
        for record in logged
        if record.HasField("artifact") or record.request.HasField("log_artifact")
    ]
    assert f"record-{tracked.record.identity}" in names


def test_a_resumed_run_continues_its_wandb_run(tracked: Tracked) -> None:
    described = [offline_files.run_of(offline_files.records(path)) for path in tracked.files]
    assert [run.run_id for run in described] == [tracked.record.identity] * 2
    last = offline_files.summary(offline_files.records(tracked.files[1]))
    assert last["builtin/pruned/windows"] == 3


def test_the_api_key_is_written_nowhere(tracked: Tracked) -> None:
    files = [path for path in tracked.path.parent.rglob("*") if path.is_file()]
    assert tracked.path in files
    assert tracked.files[0] in files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("answers", [True, False], ids=["silent server", "no server"])
def test_a_dead_server_causes_one_warning(
    answers: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()  # accepts connections and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        start = time.perf_counter()
        online = ["logger.mode=online", "logger.timeout=5"]
        _, path = run(composed([*WANDB, *online, "task.limit=2", f"out={tmp_path}"]))
        assert time.perf_counter() - start < 60
    warnings = [line for line in capfd.readouterr().err.splitlines() if "neuroal:" in line]
    assert len(warnings) == 1
    assert "wandb sync" in warnings[0]
    assert load_record(path).metrics["builtin"]["pruned"]["value"] > 1
    stored = next((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    deadline = time.perf_counter() + 30  # the process of W&B writes the file
    while "builtin/pruned/value" not in offline_files.summary(offline_files.records(stored)):
        assert time.perf_counter() < deadline
        time.sleep(0.2)


def test_any_error_of_wandb_causes_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wandb").write_text("a file in place of the folder of W&B")
    _, path = run(composed([*WANDB, "task.limit=2", f"out={tmp_path}"]))
    warnings = [line for line in capfd.readouterr().err.splitlines() if "neuroal:" in line]
    assert len(warnings) == 1
    assert load_record(path).identity == path.stem


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("logger.mode=onlin", "did you mean 'online'"),
        ("logger.timeout=0", "above 0"),
        ("logger=wand", "did you mean 'wandb'"),
    ],
)
def test_invalid_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        composed([setting])


def test_a_long_name_is_cut_to_what_wandb_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = ",".join(f"0.{number:03}" for number in range(1, 60))
    settings = [f"topup.block_candidates=[{candidates}]", f"out={tmp_path}", "seed=7"]
    config = composed(["logger=wandb", *settings])
    options: dict[str, Any] = {}
    monkeypatch.setattr("wandb.init", lambda **named: options.update(named))
    WandbTracker(config, "0" * 16).begin()
    assert len(options["name"]) == 128
    assert options["name"].endswith(" seed 7")
    assert options["name"].startswith("zoo/llama wanda neuroal(block_candidates=")
    assert max(map(len, options["tags"])) == 64
