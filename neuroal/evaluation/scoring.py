"""Log-likelihoods of continuations, from the logits of their own positions alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError

Request = tuple[Any, list[int], list[int]]
"""A key of lm-eval, the tokens of a context (at least one), and those of its continuation."""
Answer = tuple[int, list[int]]
"""The number of an input in its batch, and a continuation at the end of it."""


@torch.no_grad()
def log_likelihoods(
    model: Any,
    requests: Sequence[Request],
    context: int,
    batch: int,
    dtype: torch.dtype | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> list[tuple[float, bool]]:
    """Return Σ log p(token | all before it) over the tokens of each continuation.

    The results are those of lm-eval's `HFLM`, which takes the logarithms at all positions and of
    one request at a time; with a large vocabulary this takes most of the time and memory. Requests
    with the same input share it, such as answers of one token to one question.

    Args:
        model: causal language model of `transformers`.
        requests: contexts and continuations, as lm-eval encodes them.
        context: tokens that the model accepts; longer inputs lose their first tokens.
        batch: inputs in one forward pass, sorted by length.
        dtype: of the probabilities; None: that of the logits.
        advance: called with the number of requests that a batch answered.

    Returns:
        For each request the log-likelihood, and whether greedy decoding gives the continuation.

    Raises:
        UserError: a continuation is longer than `context`.
    """
    of_input: dict[tuple[int, ...], list[int]] = {}
    for number, (_, before, continuation) in enumerate(requests):
        if len(continuation) > context:
            raise UserError(
                f"task: an answer has {len(continuation)} tokens, but the model reads at most "
                f"{context} at once"
            )
        tokens = (before + continuation)[-(context + 1) : -1]
        of_input.setdefault(tuple(tokens), []).append(number)
    inputs = sorted(of_input, key=lambda tokens: (-len(tokens), tokens))
    order: list[int] = []
    scores = [torch.empty(0, 2, dtype=torch.float64, device=model.device)]
    for start in range(0, len(inputs), batch):
        part = inputs[start : start + batch]
        answers = [(row, number) for row, tokens in enumerate(part) for number in of_input[tokens]]
        order += [number for _, number in answers]
        scores.append(_scores(model, part, [(row, requests[n][2]) for row, n in answers], dtype))
        advance(len(answers))
    in_order = torch.cat(scores).tolist()
    of_request = {
        n: (value, bool(greedy)) for n, (value, greedy) in zip(order, in_order, strict=True)
    }
    return [of_request[number] for number in range(len(requests))]


def _scores(
    model: Any,
    inputs: Sequence[tuple[int, ...]],
    answers: Sequence[Answer],
    dtype: torch.dtype | None,
) -> Tensor:
    """Return the log-likelihood of each answer and whether it is greedy: (answers, 2) float64."""
    width, longest = len(inputs[0]), max(len(continuation) for _, continuation in answers)
    tokens = torch.zeros(len(inputs), width, dtype=torch.int64)
    for row, of_row in zip(tokens, inputs, strict=True):
        row[: len(of_row)] = torch.tensor(of_row)
    first = min(len(inputs[row]) - len(continuation) for row, continuation in answers)
    rows = torch.tensor([[row] for row, _ in answers])
    columns = torch.zeros(len(answers), longest, dtype=torch.int64)
    targets = torch.zeros_like(columns)
    counts = torch.tensor([len(continuation) for _, continuation in answers])
    for number, (row, continuation) in enumerate(answers):
        count = len(continuation)
        columns[number, :count] = torch.arange(count) + len(inputs[row]) - count - first
        targets[number, :count] = torch.tensor(continuation)
    logs = last_logits(model, tokens.to(model.device), width - first).log_softmax(-1, dtype=dtype)
    rows, columns, targets, counts = (
        each.to(logs.device) for each in (rows, columns, targets, counts)
    )
    beyond = torch.arange(longest, device=logs.device) >= counts[:, None]
    values = logs[rows, columns, targets].masked_fill(beyond, 0).sum(1)
    greedy = logs.argmax(-1)[rows, columns].eq(targets).logical_or(beyond).all(1)
    return torch.stack([values.double(), greedy.double()], 1).to(model.device)


def last_logits(model: Any, tokens: Tensor, count: int) -> Tensor:
    """Return the logits of the last `count` positions: (inputs, count, vocabulary)."""
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        logits: Tensor = model(tokens, use_cache=False, logits_to_keep=count).logits
    else:
        logits = model(tokens, use_cache=False).logits
    return logits[:, -count:]
