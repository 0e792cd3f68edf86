"""Logits are computed in chunks of a bounded size, which hold every token once."""

from __future__ import annotations

import pytest
import torch

from neuroal.execution.runner import BlockRunner
from neuroal.gradients.head import chunks_of
from tests.small_models import random_tokens, tiny_llama


@pytest.mark.parametrize(
    ("tokens", "sizes"),
    [(1, [1] * 30), (4, [4, 2] * 5), (12, [12, 6, 12]), (100, [18, 12])],
    ids=["one token", "a part of a window", "two windows", "a batch"],
)
def test_a_chunk_holds_as_many_tokens_as_fit_into_its_size(
    tokens: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroal.gradients.head.LOGIT_BYTES", {"cpu": 4 * 64 * tokens})
    runner = BlockRunner.capture(tiny_llama(num_hidden_layers=1), random_tokens(5, 6), 3)
    hidden, windows, seen = runner.embedded, [7, 2, 9, 4, 0], []
    counts = [torch.zeros(part.shape[:2]) for part in hidden]
    for chunk in chunks_of(runner, hidden, windows):
        part = counts[chunk.part][chunk.rows, chunk.positions]
        part += 1
        seen.append(part.numel())
        first = 3 * chunk.part + chunk.rows.start
        assert chunk.windows == windows[first : first + len(part)]
    assert seen == sizes
    assert all(bool((count == 1).all()) for count in counts)
