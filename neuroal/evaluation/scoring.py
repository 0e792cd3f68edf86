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
POSITIONS = 256
"""Positions whose log-probabilities are in memory at once, as vocabularies may be large."""


@torch.no_grad()
def log_likelihoods(
    model: Any,
    requests: Sequence[Request],
    context: int,
    size: int,
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
        size: tokens in one forward pass, padding included; a longer input has one of its own.
            Inputs of similar length share a pass.
        dtype: of the probabilities; None: that of the logits.
        advance: called with the number of requests that a pass answered.

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
    start = 0
    while start < len(inputs):
        part = inputs[start : start + max(1, size // len(inputs[start]))]
        start += len(part)
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
    logits = last_logits(model, tokens.to(model.device), width - first)
    positions = [
        (number, place, row, len(inputs[row]) - len(continuation) + place - first, token)
        for number, (row, continuation) in enumerate(answers)
        for place, token in enumerate(continuation)
    ]
    values = torch.zeros(len(answers), longest, dtype=dtype or logits.dtype, device=logits.device)
    greedy = torch.ones_like(values, dtype=torch.bool)
    for part in torch.tensor(positions).to(logits.device).split(POSITIONS):
        number, place, row, column, token = part.T
        logs = logits[row, column].log_softmax(-1, dtype=dtype)
        values[number, place] = logs.gather(1, token[:, None])[:, 0]
        greedy[number, place] = logs.argmax(1) == token
    return torch.stack([values.sum(1).double(), greedy.all(1).double()], 1).to(model.device)


def last_logits(model: Any, tokens: Tensor, count: int) -> Tensor:
    """Return the logits of the last `count` positions: (inputs, count, vocabulary)."""
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        logits: Tensor = model(tokens, use_cache=False, logits_to_keep=count).logits
    else:
        logits = model(tokens, use_cache=False).logits
    return logits[:, -count:]
