"""One line warns if a model's perplexity depends on BOS at the start of windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from neuroal.data.text import Windows
from neuroal.evaluation.bos_warning import bos_warning
from neuroal.evaluation.tasks import PerplexityTask
from neuroal.models.load import LoadedModel
from neuroal.records.dense_cache import evaluate_cached
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

BOS = 63


@dataclass
class Tokenizer:
    """A tokenizer with BOS, which it adds to texts if `adds`."""

    adds: bool = True
    bos_token_id: int = BOS

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [BOS, 1] if self.adds else [1]}


@torch.no_grad()
def model_that_needs_bos(strength: float = 30.0) -> LoadedModel:
    """Return a random model whose predictions depend on whether a window begins with BOS."""
    model = tiny_llama().model
    model.lm_head.weight.mul_(strength)
    return LoadedModel(model, Tokenizer(), "tiny")


def task(name: str = "lm", bos: str = "stream") -> PerplexityTask:
    return PerplexityTask(name, Windows(random_tokens(6, 24, vocabulary=60), name), None, bos)


def test_a_model_that_depends_on_bos_is_named_with_both_figures_and_the_remedy() -> None:
    line = bos_warning(model_that_needs_bos(), [task(bos="window"), task("first"), task("second")])
    assert line is not None
    assert "\n" not in line
    figures = re.search(r"first 4 windows of first is ([\d.]+), and ([\d.]+) if", line)
    assert figures
    stream, window = map(float, figures.groups())
    assert max(stream, window) > 1.1 * min(stream, window)
    assert line.endswith("set task.bos=window calibration.bos=window")


def test_no_line_without_need() -> None:
    loaded = model_that_needs_bos()
    assert bos_warning(loaded, []) is None
    assert bos_warning(loaded, [task(bos="window")]) is None
    assert bos_warning(LoadedModel(loaded.model, Tokenizer(adds=False), "tiny"), [task()]) is None
    assert bos_warning(model_that_needs_bos(strength=0.1), [task()]) is None  # no difference


def test_the_line_is_logged_once_and_not_for_cached_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, tasks = model_that_needs_bos(), [task("a"), task("b")]
    lines = []
    for _ in range(2):
        evaluate_cached(loaded, tasks, None, tmp_path, QuietProgress(), "evaluate")
        lines.append(caplog.text.count("task.bos=stream"))
        caplog.clear()
    assert lines == [1, 0]
