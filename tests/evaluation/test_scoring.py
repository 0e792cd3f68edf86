"""Log-likelihoods of whole batches are those of lm-eval's own model, request by request."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from neuroal.errors import UserError
from neuroal.evaluation.batching import MOST_ON_CPU
from neuroal.evaluation.scoring import Request, last_logits, log_likelihoods
from neuroal.evaluation.zero_shot import LONGEST, batch_for, quiet, scorer_of
from neuroal.models.load import LoadedModel
from tests.small_models import tiny_llama

TOKENS = st.lists(st.integers(1, 63), min_size=1, max_size=12)
CONTEXT = 16


def stock(loaded: LoadedModel, requests: list[Request], context: int) -> list[tuple[float, bool]]:
    scorer = HFLM(
        pretrained=loaded.model,
        tokenizer=copy.deepcopy(loaded.tokenizer),
        batch_size=3,
        max_length=context,
    )
    scores: list[tuple[float, bool]] = scorer._loglikelihood_tokens(requests, disable_tqdm=True)
    return scores


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Inputs, tokens of the longest, and positions with logits, of each forward pass so far."""
    observed: list[tuple[int, int, int]] = []

    def observing(model: Any, tokens: Tensor, count: int) -> Tensor:
        observed.append((*tokens.shape, count))
        return last_logits(model, tokens, count)

    monkeypatch.setattr("neuroal.evaluation.scoring.last_logits", observing)
    return observed


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=9), size=st.integers(1, 50))
def test_scores_are_those_of_lm_eval(
    loaded: LoadedModel, pairs: list[tuple[list[int], list[int]]], size: int
) -> None:
    # Repeated pairs, one input with two splits, and inputs beyond the context.
    pairs = [*pairs, pairs[0], ([*pairs[0][0], *pairs[0][1]], [5]), (pairs[0][0], [5])]
    requests: list[Request] = [(None, before, answer) for before, answer in pairs]
    with quiet():
        expected = stock(loaded, requests, CONTEXT)
    actual = log_likelihoods(loaded.model, requests, CONTEXT, size)
    assert [value for value, _ in actual] == pytest.approx([v for v, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in actual] == [greedy for _, greedy in expected]


def test_a_greedy_continuation_is_recognised(loaded: LoadedModel) -> None:
    begin = torch.tensor([[7, 8, 9]])
    whole = loaded.model.generate(begin, max_new_tokens=4, do_sample=False)[0].tolist()
    other = [*whole[3:-1], whole[-1] + 1]
    requests: list[Request] = [(None, whole[:3], whole[3:]), (None, whole[:3], other)]
    assert [g for _, g in log_likelihoods(loaded.model, requests, 64, 2)] == [True, False]


def test_requests_with_one_input_share_a_pass(
    loaded: LoadedModel, passes: list[tuple[int, int, int]]
) -> None:
    answered: list[int] = []
    requests: list[Request] = [(None, [4, 5, 6], [answer]) for answer in (1, 2, 3)]
    log_likelihoods(loaded.model, requests, 64, 8, advance=answered.append)
    assert passes == [(1, 3, 1)]
    assert answered == [3]


def test_a_pass_has_as_many_inputs_as_tokens_allow(
    loaded: LoadedModel, passes: list[tuple[int, int, int]]
) -> None:
    requests: list[Request] = [
        (None, [token] * length, [5]) for length, token in [(2, 1), (30, 2), (4, 3), (4, 4), (5, 6)]
    ]
    log_likelihoods(loaded.model, requests, 64, 10)
    assert [shape for *shape, _ in passes] == [[1, 30], [2, 5], [2, 4]]


@pytest.mark.parametrize("positions", [1, 2, 5])
def test_logarithms_are_taken_of_a_few_positions_at_once(
    positions: int, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Request] = [(None, [4, 5, 6], [7, 8]), (None, [9], [10, 11, 12])]
    expected = log_likelihoods(loaded.model, requests, 64, 64)
    monkeypatch.setattr("neuroal.evaluation.scoring.POSITIONS", positions)
    assert log_likelihoods(loaded.model, requests, 64, 64) == expected


@pytest.mark.parametrize("keeps", [True, False])
def test_only_the_logits_of_continuations_are_computed(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama().model
    widths: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    forward = type(model).forward
    if not keeps:
        monkeypatch.setattr(type(model), "forward", lambda self, ids, **more: forward(self, ids))
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    with torch.no_grad():
        expected = model(tokens).logits[:, -2:]
        widths.clear()
        torch.testing.assert_close(last_logits(model, tokens, 2), expected)
    assert widths == [2 if keeps else 6]


def test_half_precision_gives_the_numbers_of_lm_eval(loaded: LoadedModel) -> None:
    half = replace(loaded, model=copy.deepcopy(loaded.model).to(torch.bfloat16))
    requests: list[Request] = [(None, [4, 5, 6], [7, 8]), (None, [9], [10, 11, 12])]
    with quiet():
        expected = stock(half, requests, 64)
    assert log_likelihoods(half.model, requests, 64, 9) == expected


def test_an_answer_longer_than_the_context_is_one_line(loaded: LoadedModel) -> None:
    with pytest.raises(UserError, match="an answer has 9 tokens, but the model reads at most 8"):
        log_likelihoods(loaded.model, [(None, [1], [2] * 9)], 8, 1)


def test_no_request_is_no_result(loaded: LoadedModel) -> None:
    assert log_likelihoods(loaded.model, [], 8, 1) == []


def test_the_model_of_lm_eval_scores_in_batches(loaded: LoadedModel) -> None:
    scorer = scorer_of(loaded.model, loaded.tokenizer, 2)
    requests: list[Request] = [(None, [4, 5], [6]), (None, [4, 5, 6], [7, 8])]
    with quiet():
        scores = scorer._loglikelihood_tokens(requests)
    assert scores == log_likelihoods(loaded.model, requests, scorer.max_length, 2 * LONGEST)


def test_a_pass_on_a_cpu_has_at_most_the_tokens_of_one_longest_request(
    loaded: LoadedModel,
    passes: list[tuple[int, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuroal.evaluation.zero_shot.LONGEST", 10)
    assert batch_for(loaded.model) == MOST_ON_CPU  # also the prompts of a generation at once
    scorer = scorer_of(loaded.model, loaded.tokenizer, MOST_ON_CPU)
    requests: list[Request] = [(None, [token] * 5, [6]) for token in range(1, 9)]
    with quiet():
        scorer._loglikelihood_tokens(requests)
    assert [shape for *shape, _ in passes] == [[2, 5]] * 4
