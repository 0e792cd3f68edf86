"""Stored files of an interrupted run are used only if they are intact."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuroal.run
from neuroal.cli.compose import composed
from neuroal.config.schema import RunConfig
from neuroal.files import atomic
from neuroal.records.identity import former_identity_of
from neuroal.tracking import QuietProgress
from tests.grid.small import results

SMALL = [
    "topup=uniform",
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=16",
    "task.seqlen=16",
    "task.limit=2",
]


def config_of(out: Path, *more: str) -> RunConfig:
    return composed([*SMALL, f"out={out}", *more])


def run(config: RunConfig) -> tuple[Any, Path]:
    return neuroal.run.run(config, QuietProgress())


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunConfig, Path]:
    """Return the configuration of a run that stopped after pruning, and its ``state`` folder."""
    config = config_of(tmp_path / "interrupted")

    def stop(**_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(neuroal.run, "first_record", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    return config, Path(config.out) / "state"


def test_the_plan_of_a_run_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []
    real = atomic._entry

    def entry(value: Any) -> str:
        encoded.append(value)
        return real(value)

    monkeypatch.setattr(atomic, "_entry", entry)
    run(config_of(tmp_path))
    assert sum(isinstance(value, dict) and "ratios" in value for value in encoded) == 1


def cut_a_mask(state: Path) -> Path:
    (path,) = state.glob("*.masks.npz")
    with np.load(path) as arrays:
        masks = dict(arrays)
    name = next(iter(masks))
    masks[name] = masks[name][:-20]
    np.savez(path, **masks)
    return path


def change_a_ratio(state: Path) -> Path:
    (path,) = state.glob("*.plan")
    content = json.loads(path.read_text())
    content["plan"]["ratios"]["0.self_attn.q_proj"] = 0.1
    path.write_text(json.dumps(content))
    return path


def empty_the_masks(state: Path) -> Path:
    (path,) = state.glob("*.masks.npz")
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("damage", [cut_a_mask, change_a_ratio, empty_the_masks])
def test_damaged_files_of_an_interrupted_run_are_computed_again(
    damage: Callable[[Path], Path],
    interrupted: tuple[RunConfig, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, state = interrupted
    path = damage(state)
    with caplog.at_level(logging.WARNING, logger="neuroal"):
        run(config)
    assert f"{path}: damaged" in caplog.text
    run(config_of(tmp_path / "undisturbed"))
    assert results(tmp_path / "interrupted") == results(tmp_path / "undisturbed")


def test_a_damaged_result_of_the_dense_model_is_evaluated_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = run(config_of(tmp_path))
    (cached,) = (tmp_path / "measured").iterdir()
    content = json.loads(cached.read_text())
    content["figures"]["value"] = float("nan")
    cached.write_text(json.dumps(content))
    second, _ = run(config_of(tmp_path, "seed=1"))
    assert f"{cached}: damaged" in caplog.text
    assert second.metrics["builtin"]["dense"] == first.metrics["builtin"]["dense"]


def test_a_finished_run_is_named_and_done_again_only_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, path = run(config_of(tmp_path))
    changed = json.loads(path.read_text())
    changed["costs"]["seconds"]["prune"] = -1.0
    path.write_text(json.dumps(changed))
    with caplog.at_level(logging.INFO, logger="neuroal"):
        assert run(config_of(tmp_path))[0].costs["seconds"]["prune"] == -1.0
    assert f"already done: {path}; force=true does it again" in caplog.text
    again, same = run(config_of(tmp_path, "force=true"))
    assert same == path
    assert again.costs["seconds"]["prune"] > 0
    assert again.masks == first.masks


def test_a_task_is_evaluated_again_if_its_data_has_changed(tmp_path: Path) -> None:
    figures = []
    for text in ("one more word ", "another text of words "):
        folder = tmp_path / "data" / "ptb_text_only"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.jsonl").write_text(json.dumps({"sentence": text * 40}) + "\n")
        root = f"data.root={tmp_path / 'data'}"
        record, _ = run(config_of(tmp_path / "runs", "task.names=[ptb]", root))
        figures.append(record.metrics["ptb"]["pruned"]["value"])
    assert figures[0] != figures[1]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1


def test_the_record_holds_the_resolved_number_of_search_windows(tmp_path: Path) -> None:
    record, _ = run(config_of(tmp_path, "calibration.search_windows=null"))
    assert record.config["calibration"]["search_windows"] == 8


def test_a_record_of_version_0_1_is_not_a_finished_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    former = tmp_path / f"{former_identity_of(config_of(tmp_path))}.json"
    former.write_text("{}")
    with caplog.at_level(logging.INFO, logger="neuroal"):
        _, path = run(config_of(tmp_path))
    assert path != former
    assert f"{former}: written by version 0.1" in caplog.text
    assert former.read_text() == "{}"


def test_the_former_identity_is_the_one_that_version_0_1_wrote() -> None:
    folder = Path(__file__).parents[1] / "data" / "records_0_1"
    checked = 0
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        config, topup = record["config"], record["config"]["topup"]
        if "path" in topup or topup.get("search") == "early_out":
            continue  # a file that is not part of the repository, and a former option
        assert former_identity_of(_config_from(config)) == record["identity"]
        checked += 1
    assert checked >= 2


def _config_from(recorded: dict[str, Any]) -> RunConfig:
    """Return the configuration in a record of version 0.1."""
    from neuroal.config import schema

    parts = {
        name: getattr(schema, cls)(**recorded[name])
        for name, cls in (
            ("model", "ModelConfig"),
            ("sparsity", "SparsityConfig"),
            ("calibration", "CalibrationConfig"),
        )
    }
    rest = {key: recorded[key] for key in ("pruner", "topup", "refine", "rules", "seed")}
    return RunConfig(**parts, **rest)


COMPARED = "; pruning freely would choose 0 of their 2293760 entries differently"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("method", "compared"),
    [(["sparsegpt"], COMPARED), (["alps", "pruner.stages=1", "pruner.cg_steps=5"], "")],
)
def test_a_pruner_that_updates_weights_resumes_with_its_masks(
    method: list[str],
    compared: str,
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = [f"pruner={method[0]}", *method[1:], "calibration.windows=4", "batch=2"]

    def stop(**_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(neuroal.run, "first_record", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config_of(tmp_path / "resumed", *settings))
    with caplog.at_level(logging.INFO, logger="neuroal"):
        resumed, _ = run(config_of(tmp_path / "resumed", *settings[:-1], f"batch={batch}"))
    undisturbed, _ = run(config_of(tmp_path / "undisturbed", *settings))
    assert f"resumed with the masks of the first attempt{compared}" in caplog.messages
    assert resumed.costs["batch"]["prune"] == 2  # that of the first attempt
    assert resumed.masks == undisturbed.masks
    assert resumed.metrics == undisturbed.metrics


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def digit_of(path: Path, text: str) -> int:
    """Return the position of the digit after `text` in a file."""
    return path.read_bytes().index(text.encode()) + len(text)


@pytest.mark.parametrize("damage", ["a digit", "cut", "empty", "null"])
def test_a_damaged_record_is_set_aside_and_the_run_repeated(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, path = run(config_of(tmp_path))
    expected, text = results(tmp_path), path.read_text()
    if damage == "a digit":
        flip(path, digit_of(path, '"overall": 0.'))
    else:
        path.write_text({"cut": text[:-100], "empty": "", "null": "null"}[damage])
    damaged = path.read_bytes()
    run(config_of(tmp_path))
    assert f"{path}: damaged; kept as {path.name}.damaged, and the run is repeated" in caplog.text
    assert path.with_suffix(".json.damaged").read_bytes() == damaged
    assert results(tmp_path) == expected


def test_damaged_saved_masks_are_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, path = run(config_of(tmp_path, "save.masks=true"))
    masks = path.with_suffix(".masks.npz")
    before = masks.read_bytes()
    masks.write_bytes(before[: len(before) // 2])
    run(config_of(tmp_path, "save.masks=true"))
    assert f"{masks}: damaged; the masks are written again" in caplog.text
    assert masks.read_bytes() == before


def test_a_temporary_folder_of_a_killed_run_is_deleted(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    left = tmp_path / f".{neuroal.run.identity_of(config)}.offload.0123456789ab-1-1-0123456789ab"
    left.mkdir()
    run(config)
    assert not left.exists()
