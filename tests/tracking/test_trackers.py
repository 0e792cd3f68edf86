"""CSV, TensorBoard and MLflow receive the figures of a run; errors never cost a result."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from neuroal.cli.compose import composed
from neuroal.errors import UserError
from neuroal.records.schema import Record
from neuroal.run import run
from tests.tracking.small import SMALL


def tracked_run(logger: str, out: Path, *more: str) -> Record:
    return run(composed([*SMALL, f"logger={logger}", f"out={out}", "task.limit=2", *more]))[0]


def rows_of(out: Path, record: Record) -> list[dict[str, str]]:
    with (out / f"{record.identity}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_file_beside_the_record_has_all_figures(tmp_path: Path) -> None:
    record = tracked_run("csv", tmp_path)
    rows = rows_of(tmp_path, record)
    search = {float(r["x"]): float(r["value"]) for r in rows if r["figure"].endswith("s/criterion")}
    criteria = record.plan["report"]["criterion_block"]
    assert search.items() >= {(0.05, criteria[0]), (0.15, criteria[1])}
    final = {row["figure"]: float(row["value"]) for row in rows if not row["x"]}
    pruned = record.metrics["builtin"]["pruned"]["value"]
    assert final["builtin/pruned/value"] == pruned
    assert final["builtin/pruned_by_dense"] == pruned / record.metrics["builtin"]["dense"]["value"]
    assert final["plan/criterion_block"] == min(criteria)


def test_a_resumed_run_appends_and_a_forced_one_replaces_its_csv_file(tmp_path: Path) -> None:
    record = tracked_run("csv", tmp_path)
    once = rows_of(tmp_path, record)
    tracked_run("csv", tmp_path, "task.limit=3")
    appended = rows_of(tmp_path, record)
    assert appended[: len(once)] == once
    assert len(appended) > len(once)
    tracked_run("csv", tmp_path, "task.limit=3")  # nothing left to do
    assert rows_of(tmp_path, record) == appended
    tracked_run("csv", tmp_path, "force=true")
    assert len(rows_of(tmp_path, record)) == len(once)


def test_any_error_of_a_tracker_causes_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = tracked_run("csv", tmp_path)
    (tmp_path / f"{record.identity}.csv").unlink()
    (tmp_path / f"{record.identity}.csv").mkdir()
    capfd.readouterr()
    again = tracked_run("csv", tmp_path, "force=true")
    warnings = [line for line in capfd.readouterr().err.splitlines() if "logger=csv" in line]
    assert len(warnings) == 1
    assert again.metrics == record.metrics


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named_with_its_extra_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.tracking.tracker.find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"logger={name}: .* pip install 'neuroal\[{name}\]'"):
        tracked_run(name, tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_tensorboard_has_settings_and_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = tracked_run("tensorboard", tmp_path)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name.startswith("zoo-llama-wanda-neuroal")
    assert folder.name.endswith(record.identity)
    events = EventAccumulator(str(folder))
    events.Reload()
    values = [event.value for event in events.Scalars("search blocks/criterion")]
    assert values == pytest.approx(record.plan["report"]["criterion_block"])
    (final,) = events.Scalars("builtin/pruned/value")
    assert final.value == pytest.approx(record.metrics["builtin"]["pruned"]["value"])
    settings = next(folder.rglob("hparams.yml")).read_text()
    assert "topup: neuroal" in settings
    assert "environment.packages.torch" in settings


def test_mlflow_has_settings_figures_and_record_and_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("needs the extra mlflow")
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = tracked_run("mlflow", tmp_path, "logger.group=night")
    limited = tracked_run("mlflow", tmp_path, "logger.group=night", "task.limit=3")
    runs: list[Any] = mlflow.search_runs(experiment_names=["neuroal"], output_format="list")
    assert len(runs) == 1
    data = runs[0].data
    assert data.tags["group"] == "night"
    assert data.tags["topup"].startswith("neuroal")
    assert data.params["pruner"] == "wanda"
    assert data.params["environment.packages.torch"] == record.environment["packages"]["torch"]
    value = limited.metrics["builtin"]["pruned"]["value"]
    assert data.metrics["builtin/pruned/value"] == pytest.approx(value)
    assert runs[0].info.status == "FINISHED"
    assert list((tmp_path / "mlflow").rglob(f"{record.identity}.json"))
