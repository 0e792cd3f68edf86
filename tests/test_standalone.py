"""``neuroal-eval`` and `neuroal.evaluate` measure any model folder as a run does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import neuroal
from neuroal import cli
from neuroal.config import ModelConfig
from neuroal.errors import UserError
from neuroal.models.load import LoadedModel, load_model
from neuroal.records.store import load_record
from neuroal.run import run
from neuroal.standalone import evaluate_model
from tests.rows import ARC, RTE, write_jsonl

ZOO = "zoo/llama"
TASKS = "task.names=[builtin,rte,arc_easy]"
SMALL = [
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=64",
    "task.seqlen=64",
    "task.limit=3",
    "topup=uniform",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder and record of a run measured on a text and two zero-shot tasks."""
    folder = tmp_path_factory.mktemp("run")
    write_jsonl(folder / "data/glue-rte/validation.jsonl", RTE)
    write_jsonl(folder / "data/ai2_arc-ARC-Easy/test.jsonl", ARC)
    places = [f"data.root={folder}/data", f"save.model={folder}/model", f"out={folder}/runs"]
    _, path = run(cli.composed([*SMALL, TASKS, *places]))
    return folder, path


def test_a_record_says_how_each_task_was_measured(finished: tuple[Path, Path]) -> None:
    record = load_record(finished[1])
    terms = {
        task: (found["kind"], found["limit"], found["seqlen"])
        for task, found in record.metrics.items()
    }
    assert terms == {
        "builtin": ("perplexity", 3, 64),
        "rte": ("zero_shot", 3, None),
        "arc_easy": ("zero_shot", 3, None),
    }
    for model in ("dense", "pruned"):
        assert set(record.metrics["builtin"][model]) == {"value", "stderr", "windows"}
        assert record.metrics["arc_easy"][model]["documents"] == 3
        assert record.metrics["arc_easy"][model]["version"]["lm_eval"] == "0.4.13"
        assert "acc_norm_stderr" in record.metrics["arc_easy"][model]
    assert record.data["rte"]["source"] == "glue-rte validation"
    assert record.data["rte"]["origin"].endswith("data/glue-rte")
    assert len(record.data["rte"]["fingerprint"]) == 64


def test_the_command_finds_in_the_saved_model_what_the_record_says(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = finished
    model = ["model=hf", f"model.path={folder}/model", f"data.root={folder}/data"]
    arguments = [*model, TASKS, "task.seqlen=64", "task.limit=3", f"out={folder}/runs"]
    monkeypatch.setattr(sys, "argv", ["neuroal-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main_eval()
    assert not ended.value.code
    printed = capsys.readouterr().out
    record = load_record(path)
    kept = [json.loads(file.read_text()) for file in (folder / "runs/measured").glob("*.json")]
    assert len(kept) == 6  # three of the dense model from the run, three of the pruned one
    ours = {found["key"]["task"]: found["figures"] for found in kept if found["model"] != ZOO}
    for task, figures in record.metrics.items():
        for name, value in figures["pruned"].items():
            assert ours[task][name] == (value if name == "version" else pytest.approx(value))
        assert task in printed


def test_blocks_may_wait_elsewhere(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def noted(*options: Any) -> LoadedModel:
        asked.append(options[2:])
        return load_model(*options)

    monkeypatch.setattr("neuroal.standalone.load_model", noted)
    settings = ["task.names=[builtin]", "task.seqlen=64", "task.limit=3", "device=cpu"]
    found = [
        evaluate_model(cli.composed([*settings, f"offload={place}", f"out={tmp_path / place}"]))
        for place in ("none", "blocks", "disk")
    ]
    assert asked == [(place, tmp_path / place) for place in ("none", "blocks", "disk")]
    for other in found[1:]:
        assert other["builtin"]["value"] == pytest.approx(found[0]["builtin"]["value"], rel=1e-6)


def test_dense_figures_are_measured_once_for_all_runs(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = finished
    measured = []
    original = neuroal.evaluation.tasks.PerplexityTask.measure
    monkeypatch.setattr(
        "neuroal.evaluation.tasks.PerplexityTask.measure",
        lambda task, *rest: measured.append(task.name) or original(task, *rest),
    )
    places = [f"data.root={folder}/data", f"out={folder}/runs"]
    record, _ = run(cli.composed([*SMALL, "task.names=[builtin]", "pruner=magnitude", *places]))
    assert measured == ["builtin"]  # of the pruned model alone
    first = load_record(path)
    assert record.metrics["builtin"]["dense"] == first.metrics["builtin"]["dense"]


def test_python_and_command_line_agree(finished: tuple[Path, Path]) -> None:
    folder, path = finished
    loaded = load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))
    found = neuroal.evaluate(
        loaded.model,
        loaded.tokenizer,
        ["builtin", "rte"],
        seqlen=64,
        limit=3,
        data_root=str(folder / "data"),
    )
    record = load_record(path)
    for task in ("builtin", "rte"):
        terms = {key: record.metrics[task][key] for key in ("kind", "limit", "seqlen")}
        assert found[task] == {**terms, **record.metrics[task]["dense"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "wikitext"}, "did you mean 'wikitext2'"),
        ({"limit": 0}, "task.limit=0"),
        ({"seqlen": 4096}, "longer than the model's context of 512"),
        ({"tasks": ["hellaswag"]}, "neuroal-data fetch hellaswag"),
    ],
)
def test_mistakes_in_python(settings: dict[str, object], message: str) -> None:
    loaded = load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))
    with pytest.raises(UserError, match=message):
        neuroal.evaluate(loaded.model, loaded.tokenizer, **settings)


def test_pruning_is_refused_and_so_is_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argument, message in (("topup=owl", "prunes nothing"), ("task=none", "nothing to measure")):
        monkeypatch.setattr(sys, "argv", ["neuroal-eval", argument])
        with pytest.raises(SystemExit) as ended:
            cli.main_eval()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_missing_data_ends_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("neuroal.run.load_model", lambda *_: pytest.fail("a model was loaded"))
    for choice in ("task=zero_shot", "task=lm", "calibration=c4"):
        with pytest.raises(UserError, match="neuroal-data fetch"):
            run(cli.composed([choice, f"out={tmp_path}"]))


def test_without_lm_eval_a_zero_shot_task_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Path]
) -> None:
    monkeypatch.setattr("neuroal.evaluation.tasks.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"rte needs lm-eval.*pip install lm-eval==0\.4\.13"):
        run(cli.composed(["task.names=[rte]", f"data.root={finished[0]}/data"]))


def test_the_groups_of_tasks_are_the_papers() -> None:
    lm, shot, paper = (
        cli.composed([f"task={name}"]).task.names for name in ("lm", "zero_shot", "paper")
    )
    assert paper == [*lm, *shot]
    assert (len(lm), len(shot)) == (3, 7)
