"""``neuroal-eval`` and `neuroal.evaluate` evaluate any model as a run does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import neuroal
from neuroal.cli import evaluate
from neuroal.cli.compose import composed
from neuroal.cli.evaluate import evaluate_model
from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.models.load import LoadedModel, load_model
from neuroal.records.store import load_record
from neuroal.run import run
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
    """Return folder and record path of a run with a text and two zero-shot tasks."""
    folder = tmp_path_factory.mktemp("run")
    write_jsonl(folder / "data/glue-rte/validation.jsonl", RTE)
    write_jsonl(folder / "data/ai2_arc-ARC-Easy/test.jsonl", ARC)
    folders = [f"data.root={folder}/data", f"save.model={folder}/model", f"out={folder}/runs"]
    _, path = run(composed([*SMALL, TASKS, *folders]))
    return folder, path


def test_a_record_documents_the_terms_of_each_task(finished: tuple[Path, Path]) -> None:
    record = load_record(finished[1])
    terms = {
        task: (metrics["kind"], metrics["limit"], metrics["seqlen"], metrics["bos"])
        for task, metrics in record.metrics.items()
    }
    assert terms == {
        "builtin": ("perplexity", 3, 64, "stream"),
        "rte": ("zero_shot", 3, None, None),
        "arc_easy": ("zero_shot", 3, None, None),
    }
    for model in ("dense", "pruned"):
        assert set(record.metrics["builtin"][model]) == {"value", "stderr", "windows"}
        assert record.metrics["arc_easy"][model]["documents"] == 3
        assert record.metrics["arc_easy"][model]["version"]["lm_eval"] == "0.4.13"
        assert "acc_norm_stderr" in record.metrics["arc_easy"][model]
    assert record.data["rte"]["source"] == "glue-rte validation"
    assert record.data["rte"]["origin"].endswith("data/glue-rte")
    assert len(record.data["rte"]["fingerprint"]) == 64


def test_the_command_reproduces_the_record_from_the_saved_model(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = finished
    model = ["model=hf", f"model.path={folder}/model", f"data.root={folder}/data"]
    arguments = [*model, TASKS, "task.seqlen=64", "task.limit=3", f"out={folder}/runs"]
    monkeypatch.setattr(sys, "argv", ["neuroal-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    record = load_record(path)
    entries = [json.loads(file.read_text()) for file in (folder / "runs/measured").glob("*.json")]
    assert len(entries) == 6  # three of the dense model from the run, three of the pruned model
    ours = {entry["key"]["task"]: entry["figures"] for entry in entries if entry["model"] != ZOO}
    for task, figures in record.metrics.items():
        for name, value in figures["pruned"].items():
            assert ours[task][name] == (value if name == "version" else pytest.approx(value))
        assert task in printed


def test_offloading_does_not_change_the_figures(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def recorded(*options: Any, devices: int) -> LoadedModel:
        calls.append((*options[2:], devices))
        return load_model(*options, devices=devices)

    monkeypatch.setattr("neuroal.cli.evaluate.load_model", recorded)
    settings = ["task.names=[builtin]", "task.seqlen=64", "task.limit=3", "device=cpu"]
    choices = ("none", "blocks", "disk")
    metrics = [
        evaluate_model(composed([*settings, f"offload={choice}", f"out={tmp_path / choice}"]))[1]
        for choice in choices
    ]
    assert calls == [(choice, 1) for choice in choices]
    for other in metrics[1:]:
        assert other["builtin"]["value"] == pytest.approx(metrics[0]["builtin"]["value"], rel=1e-6)


def test_runs_share_the_dense_figures(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = finished
    evaluated = []
    original = neuroal.evaluation.tasks.PerplexityTask.evaluate
    monkeypatch.setattr(
        "neuroal.evaluation.tasks.PerplexityTask.evaluate",
        lambda task, *rest: evaluated.append(task.name) or original(task, *rest),
    )
    folders = [f"data.root={folder}/data", f"out={folder}/runs"]
    record, _ = run(composed([*SMALL, "task.names=[builtin]", "pruner=magnitude", *folders]))
    assert evaluated == ["builtin"]  # the pruned model only
    first = load_record(path)
    assert record.metrics["builtin"]["dense"] == first.metrics["builtin"]["dense"]


def test_the_python_api_agrees_with_the_record(finished: tuple[Path, Path]) -> None:
    folder, path = finished
    loaded = load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))
    metrics = neuroal.evaluate(
        loaded.model,
        loaded.tokenizer,
        ["builtin", "rte"],
        seqlen=64,
        limit=3,
        data_root=str(folder / "data"),
    )
    record = load_record(path)
    for task in ("builtin", "rte"):
        terms = {key: record.metrics[task][key] for key in ("kind", "limit", "seqlen", "bos")}
        assert metrics[task] == {**terms, **record.metrics[task]["dense"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "wikitext"}, "did you mean 'wikitext2'"),
        ({"limit": 0}, "task.limit=0"),
        ({"bos": "start"}, "bos=start: must be one of stream, window"),
        ({"seqlen": 4096}, "longer than the model's context of 512"),
        ({"tasks": ["hellaswag"]}, "neuroal-data fetch hellaswag"),
    ],
)
def test_mistakes_in_the_python_api_are_named(settings: dict[str, object], message: str) -> None:
    loaded = load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))
    with pytest.raises(UserError, match=message):
        neuroal.evaluate(loaded.model, loaded.tokenizer, **settings)


def test_pruning_options_and_an_empty_task_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argument, message in (("topup=owl", "prunes nothing"), ("task=none", "nothing to measure")):
        monkeypatch.setattr(sys, "argv", ["neuroal-eval", argument])
        with pytest.raises(SystemExit) as ended:
            evaluate.main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_missing_data_is_reported_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("neuroal.run.load_model", lambda *_: pytest.fail("a model was loaded"))
    for choice in ("task=zero_shot", "task=lm", "calibration=c4"):
        with pytest.raises(UserError, match="neuroal-data fetch"):
            run(composed([choice, f"out={tmp_path}"]))


def test_the_task_groups_are_those_of_the_paper() -> None:
    lm, shot, paper = (
        composed([f"task={name}"]).task.names for name in ("lm", "zero_shot", "paper")
    )
    assert paper == [*lm, *shot]
    assert (len(lm), len(shot)) == (3, 7)
