"""Models and tensors arrive in other processes as they were sent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuroal.errors import UserError
from neuroal.parallel.peers import ALONE
from neuroal.parallel.transfer import ModelCopy, dumps, loads, receive_model
from tests.architectures import ARCHITECTURES, build
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_of_any_architecture_is_copied_with_shared_weights(architecture: str) -> None:
    model = build(architecture, **ARCHITECTURES[architecture][0])
    copied, _ = receive_model(ModelCopy(model).packed(), CPU, ALONE)
    assert {name for name, _ in copied.named_parameters()} == {
        name for name, _ in model.named_parameters()
    }
    tokens = random_tokens(1, 8)
    assert torch.equal(copied(tokens).logits, model(tokens).logits)
    first, same = (next(iter(m.parameters())) for m in (model, copied))
    first.data.add_(1)
    assert torch.equal(first, same)


def test_tied_weights_stay_tied() -> None:
    model = tiny_llama(tie_word_embeddings=True).model
    copied, _ = receive_model(ModelCopy(model).packed(), CPU, ALONE)
    assert copied.lm_head.weight is copied.model.embed_tokens.weight


def test_tensors_of_any_dtype_and_shape_are_sent_by_value() -> None:
    tensors = [
        torch.arange(6).view(2, 3).t(),
        torch.ones(3, dtype=torch.bfloat16),
        torch.tensor(1.5),
        torch.empty(0, 4, dtype=torch.int32),
        nn.Parameter(torch.ones(2)),
    ]
    for sent, received in zip(tensors, loads(dumps(tensors)), strict=True):
        assert sent.dtype == received.dtype
        assert torch.equal(sent, received)


def test_an_object_that_cannot_be_sent_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^devices: an object cannot be sent .*; use devices=1$"):
        dumps(lambda: None)
