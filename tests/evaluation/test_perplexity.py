"""Perplexity equals a plain computation, whatever the batch."""

from __future__ import annotations

import math

import pytest
import torch

from neuroal.evaluation.perplexity import perplexity
from tests.tiny import random_tokens, tiny_llama


def test_equals_a_plain_computation_token_by_token() -> None:
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


def test_standard_error_shrinks_with_more_windows() -> None:
    model = tiny_llama().model
    few, many = (perplexity(model, random_tokens(n, 24), batch=8) for n in (4, 64))
    assert 0 < many.stderr < few.stderr
    assert many.windows == 64
