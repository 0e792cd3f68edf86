"""Any task of lm-eval runs by its own name, on data from a folder, with its prompts and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import neuroal
from neuroal.cli.compose import composed
from neuroal.config.schema import ModelConfig, TaskConfig
from neuroal.errors import UserError
from neuroal.evaluation.harness import Harness, HarnessData, evaluate_harness
from neuroal.evaluation.harness_names import definition_of
from neuroal.evaluation.tasks import prepare, require
from neuroal.models.load import LoadedModel, load_model
from neuroal.run import run
from tests.rows import ARC, write_jsonl

LAMBADA = [
    {"text": "the ship sailed over the sea and the sailors saw the sea"},
    {"text": "an old man lived in the house by the wood"},
    {"text": "she took the bread and the cheese and she gave him the cheese"},
]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "lambada_openai/test.jsonl.gz", LAMBADA)
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"ai2_arc-ARC-Easy/{split}.jsonl.gz", ARC)
    return folder


def measure(loaded: LoadedModel, root: Path, name: str, **settings: Any) -> dict[str, Any]:
    harness = Harness(name, TaskConfig(names=[name], **settings), str(root))
    metric = HarnessData.of(harness).metric
    return evaluate_harness(loaded.model, loaded.tokenizer, harness, metric, 2)


def test_a_task_has_its_own_metrics_and_one_main_figure(loaded: LoadedModel, root: Path) -> None:
    figures = measure(loaded, root, "lambada_openai")
    assert figures["metric"] == "acc"
    assert figures["value"] == figures["acc"]
    assert figures["stderr"] == figures["acc_stderr"]
    assert figures["perplexity"] == pytest.approx(_perplexity_of_last_words(loaded), rel=1e-4)
    assert figures["documents"] == 3


@torch.no_grad()
def _perplexity_of_last_words(loaded: LoadedModel) -> float:
    """Return exp of the mean negative log-likelihood of each text's last word."""
    losses = []
    for row in LAMBADA:
        context, _, word = row["text"].rpartition(" ")
        begin = len(loaded.tokenizer(context)["input_ids"])
        whole = loaded.tokenizer(f"{context} {word}")["input_ids"]
        logs = loaded.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        losses.append(-sum(float(logs[i - 1, whole[i]]) for i in range(begin, len(whole))))
    return float(torch.tensor(losses).mean().exp())


def test_examples_in_the_prompt_are_those_asked_for(loaded: LoadedModel, root: Path) -> None:
    prompts = [
        measure(loaded, root, "arc_easy", fewshot=count, limit=1, log_samples=True)["samples"]
        for count in (0, 2)
    ]
    texts = [samples["arc_easy"][0]["arguments"][0][0] for samples in prompts]
    assert [text.count("Question:") for text in texts] == [1, 3]


def test_the_chat_template_is_that_of_the_tokenizer(loaded: LoadedModel, root: Path) -> None:
    config = TaskConfig(names=["lambada_openai"], chat_template=True)
    with pytest.raises(UserError, match="has no chat template"):
        prepare(config, loaded.tokenizer, 64, str(root))
    tokenizer = type(loaded.tokenizer).from_pretrained(loaded.tokenizer.name_or_path)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    chatting = LoadedModel(loaded.model, tokenizer, "chatting")
    samples = measure(chatting, root, "lambada_openai", chat_template=True, log_samples=True)
    prompt = samples["samples"]["lambada_openai"][0]["arguments"][0][0]
    assert prompt.startswith("<user>the ship")


def test_a_run_records_any_task_and_repeats_it_for_other_prompts(
    root: Path, tmp_path: Path
) -> None:
    small = ["model=zoo/opt", "pruner=magnitude", "topup=uniform", f"data.root={root}"]
    small += ["calibration.windows=1", "calibration.seqlen=16", f"out={tmp_path}"]
    small += ["task.names=[lambada_openai,arc_easy]", "task.limit=2"]
    record, path = run(composed([*small, "task.log_samples=true"]))
    assert record.metrics["lambada_openai"]["kind"] == "lm_eval"
    assert record.metrics["arc_easy"]["kind"] == "zero_shot"
    for task in ("lambada_openai", "arc_easy"):
        lines = (tmp_path / "samples" / record.identity / f"{task}.jsonl").read_text().splitlines()
        assert len(lines) == 2
        assert json.loads(lines[0])["task"] == task
        assert len(list((tmp_path / "measured").glob(f"{task}-*.samples.jsonl"))) == 1
    before = path.read_text()
    assert "samples" not in record.metrics["arc_easy"]["pruned"]
    run(composed(small))
    assert path.read_text() == before
    again, _ = run(composed([*small, "task.fewshot=1", "task.names=[arc_easy]"]))
    assert again.metrics["arc_easy"]["kind"] == "lm_eval"
    assert again.metrics["arc_easy"]["prompt"] == "1-shot"


def test_evaluate_in_python_takes_any_task(loaded: LoadedModel, root: Path) -> None:
    scores = neuroal.evaluate(
        loaded.model, loaded.tokenizer, "lambada_openai", limit=1, data_root=str(root)
    )
    assert scores["lambada_openai"]["documents"] == 1


def test_a_group_is_the_mean_of_its_tasks(loaded: LoadedModel, tmp_path: Path) -> None:
    text = {"context": "a text", "question": "which?", "choices": ["one", "two", "three", "four"]}
    for task, answers in (("agent", "AB"), ("dialogue", "CDA")):
        rows = [{**text, "answer": "ABCD".index(letter)} for letter in answers]
        write_jsonl(tmp_path / f"longbench2_{task}_history/train.jsonl.gz", rows)
    figures = measure(loaded, tmp_path, "longbench2_history")
    assert figures["documents"] == 5
    alone = [measure(loaded, tmp_path, f"longbench2_{t}_history") for t in ("agent", "dialogue")]
    mean = sum(part["acc"] * part["documents"] for part in alone) / 5
    assert figures["value"] == pytest.approx(mean)


def test_groups_are_known_by_name() -> None:
    group = definition_of("mmlu")
    assert group is not None
    assert group.is_group
    assert definition_of("lambada_openaii") is None


def test_an_unknown_task_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no task 'lambada_openaii'.*lambada_openai"):
        composed(["task.names=[lambada_openaii]"])
    with pytest.raises(UserError, match=r"task\.fewshot=-1: must be at least 0"):
        composed(["task.fewshot=-1"])


def test_missing_data_is_one_line_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data of 'lambada_openai' cannot be read .*data\.root"):
        require(TaskConfig(names=["lambada_openai"]), str(tmp_path))
    write_jsonl(tmp_path / "lambada_openai/train.jsonl.gz", LAMBADA)
    with pytest.raises(UserError, match=r"has no test\.jsonl\.gz, the split of 'lambada_openai'"):
        require(TaskConfig(names=["lambada_openai"]), str(tmp_path))
