"""A run saves its model and plan once, and replaces nothing of another run unasked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from neuroal.cli.compose import composed
from neuroal.errors import UserError
from neuroal.files.manifest import MANIFEST, Manifest
from neuroal.models.location import ZOO
from neuroal.records.resume import open_run
from neuroal.records.schema import Record
from neuroal.run import run
from tests.small_models import tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "llama")
    tiny_llama(vocab_size=len(tokenizer)).model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def start(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that does a small run with further overrides in an empty folder."""
    monkeypatch.chdir(tmp_path)
    small = ["model=hf", f"model.path={model}", "pruner=magnitude", "topup=uniform", "task=none"]
    small += ["calibration.windows=1", "calibration.seqlen=16"]

    def start(*overrides: str) -> Record:
        return run(composed([*small, *overrides]))[0]

    return start


def refuse_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroal.run.load_model", lambda *_: pytest.fail("a model was loaded"))


def test_a_restarted_run_accepts_its_own_model_and_plan(
    start, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = start("save.model=P", "save.plan=plan.json")
    assert json.loads(Path("P", MANIFEST).read_text())["identity"] == record.identity
    for plan in ("plan.json", "P/plan.json"):
        assert json.loads(Path(plan).read_text())["identity"] == record.identity
    times = [path.stat().st_mtime_ns for path in (Path("P/model.safetensors"), Path("plan.json"))]
    refuse_to_load(monkeypatch)
    start("save.model=P", "save.plan=plan.json")
    again = [path.stat().st_mtime_ns for path in (Path("P/model.safetensors"), Path("plan.json"))]
    assert again == times


def test_a_run_without_its_record_accepts_its_own_model_and_plan(start) -> None:
    record = start("save.model=P", "save.plan=plan.json")
    Path("runs", f"{record.identity}.json").unlink()
    assert start("save.model=P", "save.plan=plan.json").masks == record.masks


def test_a_partial_model_is_written_again(start) -> None:
    record = start("save.model=P")
    content = Path("P/model.safetensors").read_bytes()
    Path("P/model.safetensors").unlink()
    start("save.model=P")
    assert Path("P/model.safetensors").read_bytes() == content
    assert Manifest.read(Path("P")).identity == record.identity


@pytest.mark.parametrize("target", ["save.model=P", "save.plan=P"])
def test_another_run_is_refused_before_any_work(
    target: str, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(target)
    with monkeypatch.context() as patch:
        refuse_to_load(patch)
        with pytest.raises(UserError, match=r"another run \(\w{16}\); set save.overwrite=true"):
            start(target, "sparsity=s50")
        assert len(list(Path("runs").glob("*.json"))) == 1
    record = start(target, "sparsity=s50", "save.overwrite=true")
    file = Path("P") / MANIFEST if Path("P").is_dir() else Path("P")
    assert json.loads(file.read_text())["identity"] == record.identity


def test_a_saved_plan_with_an_identity_is_read(start) -> None:
    first = start("save.plan=plan.json")
    again = start("topup=plan", "topup.path=plan.json")
    assert again.masks == first.masks
    with pytest.raises(UserError, match=r"overlaps topup\.path"):
        start("topup=plan", "topup.path=plan.json", "save.plan=plan.json")


def test_a_restart_after_a_kill_finishes_the_model(start) -> None:
    """The kill comes between the two renames, and leaves a half-written folder of another start."""
    start("save.model=P", "sparsity=s50")
    record = start()
    old = Path(f".P.{record.identity}.00000000.old")
    os.rename("P", old)
    part = Path(f".P.{record.identity}.00000000")
    part.mkdir()
    Manifest(record.identity).write(part)
    (part / "model.safetensors").write_text("half")
    with pytest.raises(UserError, match="another run"):  # the previous model is back in its place
        start("save.model=P")
    assert Path("P/model.safetensors").exists()
    start("save.model=P", "save.overwrite=true")
    assert Manifest.read(Path("P")).identity == record.identity
    assert not list(Path().glob(".P*"))


def test_a_new_folder_among_the_records_is_a_target(start) -> None:
    record = start("save.model=runs/pruned", "save.plan=runs/plan.json")
    assert Path("runs", f"{record.identity}.json").is_file()
    assert Path("runs/pruned/model.safetensors").is_file()
    with open_run(Path("runs"), record.identity) as files:
        assert files.record is not None
