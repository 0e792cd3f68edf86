"""Perplexity equals a direct computation for every batch size."""

from __future__ import annotations

import math

import pytest
import torch

from neuroal.config.schema import ModelConfig
from neuroal.data.text import evaluation_windows
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.load import load_model
from tests.small_models import random_tokens, tiny_llama


def test_it_equals_a_direct_computation_token_by_token() -> None:
    model, windows = tiny_llama().model, random_tokens(5, 24)
    losses = []
    with torch.no_grad():
        for window in windows:
            probabilities = model(window[None]).logits[0].double().softmax(-1)
            losses += [-math.log(probabilities[i, window[i + 1]]) for i in range(23)]
    expected = math.exp(sum(losses) / len(losses))
    assert perplexity(model, windows, batch=2).value == pytest.approx(expected, rel=1e-4)


def test_the_batch_size_does_not_matter() -> None:
    model, windows = tiny_llama().model, random_tokens(5, 24)
    values = [perplexity(model, windows, batch=batch).value for batch in (1, 3, 5)]
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)


def test_the_standard_error_decreases_with_more_windows() -> None:
    model = tiny_llama().model
    few, many = (perplexity(model, random_tokens(n, 24), batch=8) for n in (4, 64))
    assert 0 < many.stderr < few.stderr
    assert many.windows == 64


def test_one_window_has_no_standard_error() -> None:
    assert perplexity(tiny_llama().model, random_tokens(1, 24)).stderr is None


def test_a_model_in_half_precision_is_scored_in_float32() -> None:
    model, windows = tiny_llama().model.to(torch.bfloat16), random_tokens(3, 24)
    with torch.no_grad():
        logits = torch.cat([model(window[None]).logits for window in windows])
    losses = [
        torch.nn.functional.cross_entropy(scores[:-1].double(), tokens[1:])
        for scores, tokens in zip(logits, windows, strict=True)
    ]
    expected = math.exp(float(torch.stack(losses).mean()))
    assert perplexity(model, windows, batch=1).value == pytest.approx(expected, rel=1e-5)


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    tried = []

    def work(batch: int) -> int:
        tried.append(batch)
        if batch > 3:
            raise torch.OutOfMemoryError
        return batch

    with pytest.warns(UserWarning, match="evaluate: memory does not suffice"):
        assert AdaptiveBatch("evaluate", 20).run(work) == 2
    assert tried == [20, 10, 5, 2]
    with pytest.raises(UserError, match="single window"):
        AdaptiveBatch("evaluate", 1).run(lambda batch: work(9))


def test_it_equals_the_loss_of_transformers_on_a_real_model() -> None:
    loaded = load_model(ModelConfig(source="zoo", path="opt"), torch.device("cpu"))
    windows = evaluation_windows("builtin", loaded.tokenizer, 128, 6, None)
    with torch.no_grad():
        losses = [
            float(loaded.model(window[None], labels=window[None]).loss) for window in windows.tokens
        ]
    figures = perplexity(loaded.model, windows.tokens)
    mean = sum(losses) / len(losses)
    deviation = (sum((loss - mean) ** 2 for loss in losses) / (len(losses) - 1)) ** 0.5
    assert figures.value == pytest.approx(math.exp(mean), rel=1e-4)
    error = math.exp(mean) * deviation / len(losses) ** 0.5
    assert figures.stderr == pytest.approx(error, rel=1e-3)
