"""Zero-shot tasks are those of lm-eval, on data from files."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.utils
import pytest
import torch
from jinja2 import Environment
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from neuroal.config.schema import ModelConfig
from neuroal.data.resolve import DataSplit, find_rows
from neuroal.errors import UserError
from neuroal.evaluation.task_table import TASKS, ZERO_SHOT
from neuroal.evaluation.tasks import ZeroShotTask
from neuroal.evaluation.zero_shot import DEFINITIONS, write_task, zero_shot
from neuroal.files.outputs import ModelFolder
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.save import save_model
from neuroal.tracking.progress import Portion
from tests.rows import ARC, HELLASWAG, RTE, write_jsonl, write_parquet
from tests.small_models import tiny_llama

SOURCE = {  # keys of a task's data source; all other keys define the scoring
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with RTE and ARC as JSON lines, and HellaSwag in the layout of the hub."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "glue-rte/validation.jsonl.gz", RTE)
    write_jsonl(folder / "ai2_arc-ARC-Easy/test.jsonl", ARC)
    write_parquet(folder / "hellaswag/data/validation-00000-of-00001.parquet", HELLASWAG)
    return folder


def data_of(root: Path, name: str) -> DataSplit:
    split = "test" if name.startswith("arc") else "validation"
    return find_rows(name, split, str(root))


def test_all_tasks_of_the_paper_have_a_stock_definition() -> None:
    for name in ZERO_SHOT:
        assert load_yaml(DEFINITIONS / str(TASKS[name].harness))["task"] == name


@pytest.mark.parametrize("name", ["rte", "arc_easy", "hellaswag"])
def test_only_the_source_of_the_data_differs_from_the_stock_task(
    name: str, root: Path, tmp_path: Path
) -> None:
    ours = load_yaml(write_task(tmp_path, name, data_of(root, name)))
    stock = load_yaml(DEFINITIONS / str(TASKS[name].harness))
    differing = {key for key in ours.keys() | stock.keys() if ours.get(key) != stock.get(key)}
    assert differing <= SOURCE
    assert ours["training_split"] is None


def test_prompts_and_choices_are_those_of_the_task(root: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path, "hellaswag", data_of(root, "hellaswag"))
    task = TaskManager(include_defaults=False).load([str(path)])["tasks"]["hellaswag"]
    first, fourth = (dict(task.eval_docs[i]) for i in (0, 3))
    assert task.doc_to_text(first) == "Baking: A man cracks two eggs. He"
    assert task.doc_to_choice(first) == HELLASWAG[0]["endings"]
    assert fourth["query"].startswith("Chess. : A boy sits.")
    assert fourth["gold"] == 3


@pytest.mark.parametrize(
    ("name", "metrics"), [("rte", {"acc"}), ("hellaswag", {"acc", "acc_norm"})]
)
def test_a_task_reports_its_metrics_documents_and_versions(
    name: str, metrics: set[str], loaded: LoadedModel, root: Path
) -> None:
    data = data_of(root, name)
    figures = zero_shot(loaded.model, loaded.tokenizer, name, data)
    named = {*metrics, *(f"{metric}_stderr" for metric in metrics)}
    assert set(figures) == {*named, "documents", "version"}
    assert figures["documents"] == len(data.rows)
    assert figures["version"] == {"lm_eval": "0.4.13", "task": 1.0}
    assert all(0 <= figures[metric] <= 1 for metric in metrics)


def test_accuracy_is_the_share_of_documents_with_the_likeliest_answer_right(
    loaded: LoadedModel, root: Path
) -> None:
    right = 0
    for row in ARC:
        prompt = f"Question: {row['question']}\nAnswer:"
        scores = [_log_likelihood(loaded, prompt, f" {text}") for text in row["choices"]["text"]]
        right += scores.index(max(scores)) == "ABCD".index(row["answerKey"])
    figures = zero_shot(loaded.model, loaded.tokenizer, "arc_easy", data_of(root, "arc_easy"))
    assert figures["acc"] == pytest.approx(right / len(ARC))


@torch.no_grad()
def _log_likelihood(loaded: LoadedModel, context: str, continuation: str) -> float:
    whole = loaded.tokenizer(context + continuation)["input_ids"]
    begin = len(loaded.tokenizer(context)["input_ids"])
    logs = loaded.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(logs[i - 1, whole[i]]) for i in range(begin, len(whole)))


def test_a_limit_selects_the_first_documents_for_every_batch_size(
    loaded: LoadedModel, root: Path
) -> None:
    data = data_of(root, "rte")
    few = zero_shot(loaded.model, loaded.tokenizer, "rte", data, limit=4, batch=1)
    again = zero_shot(loaded.model, loaded.tokenizer, "rte", data, limit=4, batch=8)
    assert few["documents"] == 4
    assert few == again


def test_a_template_is_compiled_once_for_all_documents(
    loaded: LoadedModel, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []
    compile_template = Environment.from_string

    def counting(self: Environment, source: str) -> Any:
        sources.append(source)
        return compile_template(self, source)

    monkeypatch.setattr(Environment, "from_string", counting)
    zero_shot(loaded.model, loaded.tokenizer, "rte", data_of(root, "rte"))
    assert sources
    assert len(sources) == len(set(sources))
    assert "from_string" not in vars(lm_eval.utils.env)  # as before, for other users of lm-eval


def test_the_tokenizer_is_unchanged_and_nothing_is_printed(
    loaded: LoadedModel, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = loaded.tokenizer.pad_token
    zero_shot(loaded.model, loaded.tokenizer, "rte", data_of(root, "rte"), limit=2)
    assert loaded.tokenizer.pad_token == before
    assert capfd.readouterr() == ("", "")


def test_a_request_beyond_the_length_of_the_tokenizer_logs_nothing(
    loaded: LoadedModel, root: Path
) -> None:
    short = copy.deepcopy(loaded.tokenizer)
    short.model_max_length = 4  # lm-eval truncates requests to the context of the model
    logger, messages = logging.getLogger("transformers"), list[str]()
    handler, before = logging.Handler(), logger.level
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        zero_shot(loaded.model, short, "rte", data_of(root, "rte"), limit=2)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert not messages


def test_requests_with_ids_beyond_the_embedding_are_refused(
    loaded: LoadedModel, root: Path
) -> None:
    with pytest.raises(UserError, match=r"a request has token id \d+, but .* 64 rows"):
        zero_shot(tiny_llama().model, loaded.tokenizer, "rte", data_of(root, "rte"), limit=2)


def test_scores_that_are_not_finite_are_reported(loaded: LoadedModel, root: Path) -> None:
    model = tiny_llama(vocab_size=4096, max_position_embeddings=512).model
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.warns(UserWarning, match="4 of 4 log-likelihoods are not finite"):
        zero_shot(model, loaded.tokenizer, "rte", data_of(root, "rte"), limit=2)


COMPARED = ("rte", "arc_easy", "hellaswag")


@pytest.fixture(scope="module")
def saved(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(loaded, ModelFolder(folder, "0" * 16), {})
    return folder


def compare(theirs: Mapping[str, Any], saved: Path, root: Path) -> None:
    """Compare the figures of lm-eval with ours, on the same saved model and data."""
    model = load_model(ModelConfig(source="hf", path=str(saved)), torch.device("cpu"))
    for name in COMPARED:
        ours = zero_shot(model.model, model.tokenizer, name, data_of(root, name), limit=3, batch=4)
        for metric in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr"):
            assert ours.get(metric) == theirs[name].get(f"{metric},none")


def test_the_figures_equal_those_of_lm_evals_evaluation(
    saved: Path, root: Path, tmp_path: Path
) -> None:
    paths = [str(write_task(tmp_path, name, data_of(root, name))) for name in COMPARED]
    theirs = lm_eval.simple_evaluate(
        "hf",
        {"pretrained": str(saved), "dtype": "float32"},
        paths,
        batch_size=4,
        device="cpu",
        limit=3,
        task_manager=TaskManager(include_defaults=False),
    )
    compare(theirs["results"], saved, root)


@pytest.mark.slow
def test_the_figures_equal_those_of_lm_evals_command(
    saved: Path, root: Path, tmp_path: Path
) -> None:
    paths = [str(write_task(tmp_path, name, data_of(root, name))) for name in COMPARED]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={saved},dtype=float32"]
    command += ["--tasks", ",".join(paths), "--batch_size", "4", "--limit", "3"]
    command += ["--output_path", str(tmp_path / "results.json")]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (written,) = tmp_path.glob("results*.json")
    compare(json.loads(written.read_text())["results"], saved, root)


def test_requests_are_counted_as_documents(
    root: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.evaluation.zero_shot.LONGEST", 1)  # one input in a pass
    counts: list[int] = []

    class Counts:
        def advance(self, count: int = 1, **info: object) -> None:
            counts.append(count)

    task = ZeroShotTask("rte", data_of(root, "rte"), 4)
    portion = Portion(Counts(), task.units)
    task.evaluate(loaded.model, loaded.tokenizer, 1, portion)
    assert counts == [2, 1, 1]  # a step for each pass; two documents have the same input
