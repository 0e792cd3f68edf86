"""An unpruned model is evaluated once for all runs that need it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from neuroal.files.lock import leased
from neuroal.models.fingerprint import fingerprint
from neuroal.models.load import LoadedModel
from neuroal.records.dense_cache import (
    FOLDER,
    Abandoned,
    CacheEntry,
    DenseFigures,
    evaluate_cached,
)
from neuroal.tracking import QuietProgress
from tests.small_models import tiny_llama


@dataclass
class Counting:
    """A slow task that counts its evaluations."""

    headline: ClassVar[str] = "value"
    name: str
    data: str = "d1"
    limit: int | None = None
    seconds: float = 0.0
    evaluations: list[int] = field(default_factory=list)

    @property
    def terms(self) -> dict[str, Any]:
        return {"kind": "perplexity", "limit": self.limit, "seqlen": 8}

    @property
    def description(self) -> dict[str, str]:
        return {"source": self.name, "origin": "test", "fingerprint": self.data}

    units = 1

    def evaluate(
        self, model: Any, tokenizer: Any, batch: int | None, portion: Any = None
    ) -> dict[str, Any]:
        self.evaluations.append(threading.get_ident())
        time.sleep(self.seconds)
        return {"value": len(self.evaluations) + 0.5}


class LoggingSamples(Counting):
    log_samples = True


def evaluate(model: Any, tasks: list[Counting], out: Path) -> dict[str, dict[str, Any]]:
    loaded = LoadedModel(model, None, "tiny")
    return evaluate_cached(loaded, tasks, None, out, QuietProgress(), "evaluate")


def test_a_second_call_evaluates_nothing(tmp_path: Path) -> None:
    model, tasks = tiny_llama().model, [Counting("a"), Counting("b")]
    first = evaluate(model, tasks, tmp_path)
    assert evaluate(model, tasks, tmp_path) == first == {"a": {"value": 1.5}, "b": {"value": 1.5}}
    assert [len(task.evaluations) for task in tasks] == [1, 1]


@pytest.mark.parametrize("change", ["weights", "data", "limit"])
def test_other_weights_data_or_limits_are_evaluated_again(change: str, tmp_path: Path) -> None:
    model, task = tiny_llama().model, Counting("a")
    evaluate(model, [task], tmp_path)
    if change == "weights":
        with torch.no_grad():
            model.model.layers[2].mlp.up_proj.weight[3, 5] = 0
    elif change == "data":
        task.data = "d2"
    else:
        task.limit = 3
    assert evaluate(model, [task], tmp_path) == {"a": {"value": 2.5}}


def test_processes_that_start_together_share_the_work(tmp_path: Path) -> None:
    model = tiny_llama().model
    tasks = [Counting(name, seconds=0.3) for name in "abcd"]
    results: list[dict[str, dict[str, Any]]] = []

    def work() -> None:
        results.append(evaluate(model, tasks, tmp_path))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(task.evaluations) for task in tasks] == [1, 1, 1, 1]
    assert len({task.evaluations[0] for task in tasks}) == 2
    assert results[0] == results[1]
    assert not list(tmp_path.rglob("*.lock"))


def lock_of(task: Counting, model: Any, out: Path) -> Path:
    entry = CacheEntry.of(task, fingerprint(model), LoadedModel(model, None, "tiny"), out / FOLDER)
    return entry.path.with_suffix(".lock")


def test_the_task_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    model, task = tiny_llama().model, Counting("a")
    lock = lock_of(task, model, tmp_path)
    lock.parent.mkdir()
    lock.write_text("{}")
    os.utime(lock, (time.time() - 600,) * 2)
    assert evaluate(model, [task], tmp_path) == {"a": {"value": 1.5}}


def test_figures_of_another_process_are_awaited_last(tmp_path: Path) -> None:
    model, tasks = tiny_llama().model, [Counting("a"), Counting("b")]
    figures = DenseFigures(LoadedModel(model, None, "tiny"), tasks, tmp_path)
    with leased(lock_of(tasks[0], model, tmp_path)):
        figures.evaluate(None, QuietProgress(), "evaluate")
    assert [len(task.evaluations) for task in tasks] == [0, 1]
    pairs = figures.beside((task, {"value": 9.0}) for task in tasks)
    assert next(pairs) == (tasks[1], {"value": 1.5}, {"value": 9.0})
    evaluate(model, tasks, tmp_path)
    assert list(pairs) == [(tasks[0], {"value": 1.5}, {"value": 9.0})]


def test_figures_without_the_samples_that_a_task_logs_are_not_used(tmp_path: Path) -> None:
    model, task = tiny_llama().model, Counting("a")
    evaluate(model, [task], tmp_path)  # without samples
    logging = LoggingSamples("a")
    figures = DenseFigures(LoadedModel(model, None, "tiny"), [logging], tmp_path)
    with leased(lock_of(task, model, tmp_path)):
        figures.evaluate(None, QuietProgress(), "evaluate")
    with pytest.raises(Abandoned):
        list(figures.beside([(logging, {"value": 9.0})]))


def test_figures_that_no_process_computes_any_more_are_reported(tmp_path: Path) -> None:
    model, task = tiny_llama().model, Counting("a")
    figures = DenseFigures(LoadedModel(model, None, "tiny"), [task], tmp_path)
    with leased(lock_of(task, model, tmp_path)):
        figures.evaluate(None, QuietProgress(), "evaluate")
    with pytest.raises(Abandoned, match="the dense model on a has ended"):
        list(figures.beside([(task, {"value": 9.0})]))


def test_a_fingerprint_depends_on_weights_and_dtype() -> None:
    model = tiny_llama().model
    prints = [fingerprint(model), fingerprint(tiny_llama().model)]
    with torch.no_grad():
        model.lm_head.weight[1, 1] += 1e-3
    prints += [fingerprint(model), fingerprint(model.to(torch.bfloat16))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
