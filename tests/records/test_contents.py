"""A run is identified by the content of its files and of its methods, not by their paths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroal.cli.compose import composed
from neuroal.cli.declared import planned
from neuroal.config.schema import ModelConfig, RunConfig
from neuroal.data import hub
from neuroal.grid.report import states_text
from neuroal.grid.status import RunState, status_of
from neuroal.models import content
from neuroal.models.content import model_content
from neuroal.models.location import ZOO
from neuroal.records.contents import Contents
from neuroal.records.identity import identity_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of a model of its own."""
    return Path(shutil.copytree(ZOO / "llama", tmp_path / "model"))


def config_of(path: Path | str, out: Path, *more: str) -> RunConfig:
    return composed(["model=hf", f"model.path={path}", f"out={out}", *more])


def test_other_weights_under_the_same_path_are_another_run(model: Path, tmp_path: Path) -> None:
    before = identity_of(config_of(model, tmp_path))
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert identity_of(config_of(model, tmp_path)) != before


def test_a_moved_copied_or_relative_model_is_the_same_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = identity_of(config_of(model, tmp_path))
    shutil.copytree(model, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "copy", "./model", "copy"):
        assert identity_of(config_of(path, tmp_path)) == expected
    assert identity_of(composed(["model=zoo/llama", f"out={tmp_path}"])) == expected


def test_one_relative_path_in_two_folders_is_two_runs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ZOO / "opt", tmp_path / "elsewhere" / "model")
    identities = []
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        identities.append(identity_of(config_of("./model", tmp_path)))
    assert identities[0] != identities[1]


def test_a_note_beside_the_weights_does_not_count(model: Path, tmp_path: Path) -> None:
    before = identity_of(config_of(model, tmp_path))
    (model / "README.md").write_text("A note.")
    (model / "plan.json").write_text("{}")
    assert identity_of(config_of(model, tmp_path)) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_configuration_and_tokenizer_count(name: str, model: Path, tmp_path: Path) -> None:
    before = identity_of(config_of(model, tmp_path))
    with (model / name).open("a") as file:
        file.write("\n")
    assert identity_of(config_of(model, tmp_path)) != before


def test_other_calibration_data_in_a_folder_is_another_run(tmp_path: Path) -> None:
    identities = []
    for text in ("one", "two"):
        folder = tmp_path / text / "wikitext-2-raw-v1"
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text(f'{{"text": "{text}"}}\n')
        identities.append(
            identity_of(composed(["calibration=wikitext2", f"data.root={tmp_path / text}"]))
        )
    assert identities[0] != identities[1]


def test_a_machine_without_the_model_recognises_the_runs_of_one_that_has_it(
    model: Path, tmp_path: Path
) -> None:
    grid = ["experiment=zoo", "model=hf", f"model.path={model}", "pruner=wanda", "topup=uniform"]
    overrides = [*grid, "refine=none", "sparsity=s60", "seed=0", f"out={tmp_path / 'runs'}"]
    (run,) = planned(overrides)[1]
    Contents().bind(run.config)
    model.rename(tmp_path / "taken")
    (there,) = planned(overrides)[1]
    assert there.identity == run.identity
    assert f"model {model}: not here" in states_text([there], list(status_of([there])))


def test_a_grid_is_planned_without_its_model_and_data(tmp_path: Path) -> None:
    _, runs = planned(
        ["experiment=paper", "model=llama-7b", "topup=owl", f"out={tmp_path}", "data.root=null"]
    )
    statuses = list(status_of(runs))
    assert {status.state for status in statuses} == {RunState.MISSING}
    assert "model huggyllama/llama-7b: not here" in states_text(runs, statuses)
    assert len({run.identity for run in runs}) == len(runs)


def test_the_status_counts_records_of_version_0_1(tmp_path: Path) -> None:
    _, runs = planned(["experiment=zoo", "model=zoo/llama", "pruner=wanda", f"out={tmp_path}"])
    for run in runs[:2]:
        run.former_record.write_text("{}")
    text = states_text(runs, list(status_of(runs)))
    assert "2 runs have a record of version 0.1, which does not count as finished" in text


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of model ``me/tiny`` in a Hugging Face cache without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.unreachable.cache_clear()
    content._commit.cache_clear()
    folder = tmp_path / "models--me--tiny"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(ZOO / "llama", folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    yield folder
    hub.unreachable.cache_clear()
    content._commit.cache_clear()


def test_a_model_of_the_hub_counts_by_its_resolved_commit(hub_cache: Path) -> None:
    tiny = ModelConfig(source="hf", path="me/tiny")
    assert model_content(tiny) == f"me/tiny@{'a' * 40}"
    pinned = ModelConfig(source="hf", path="me/tiny", revision="b" * 40)
    assert model_content(pinned) == f"me/tiny@{'b' * 40}"
    (hub_cache / "refs" / "main").write_text("b" * 40)
    content._commit.cache_clear()
    assert model_content(tiny) == model_content(pinned)


def test_a_model_that_cannot_be_found_has_no_content(tmp_path: Path) -> None:
    assert model_content(ModelConfig(source="hf", path=str(tmp_path / "none"))) is None
    assert model_content(ModelConfig(source="gguf", path=os.devnull + "x")) is None
