"""Blocks are run one at a time only if the model runs them so."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedModel

import neuroal
from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.models.adapter import DecoderModel
from tests.architectures import build
from tests.small_models import random_tokens

TOKENS = random_tokens(3, 10)
SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
Loop = Callable[[nn.ModuleList, Tensor], Tensor]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.idle = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, hidden: Tensor) -> Any:
        return hidden + self.up(hidden).tanh()


class Toy(PreTrainedModel):
    """A model whose loop over its three blocks is `loop`."""

    config_class = LlamaConfig

    def __init__(self, loop: Loop) -> None:
        super().__init__(LlamaConfig(**SIZES))
        self.embed, self.blocks = nn.Embedding(64, 16), nn.ModuleList(Block() for _ in range(3))
        self.loop = loop

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, tokens: Tensor, use_cache: bool = False) -> Any:
        hidden = self.loop(self.blocks, self.embed(tokens))
        return SimpleNamespace(logits=hidden @ self.embed.weight.T)


def toy(loop: Loop) -> DecoderModel:
    torch.manual_seed(0)
    return DecoderModel(Toy(loop))


def plain(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
    for block in blocks:
        hidden = block(hidden)
    return hidden


def scaled(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
    for block in blocks:
        hidden = block(hidden) / 2
    return hidden


def backwards(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
    for block in reversed(blocks):
        hidden = block(hidden)
    return hidden


def twice(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
    return plain(blocks, plain(blocks, hidden))


def first_alone(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
    return blocks[0](hidden)


def streams(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
    return plain(blocks, torch.stack([hidden, hidden])).sum(0)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (scaled, "the output of block 0 is not the input of block 1"),
        (backwards, "do not run once each and in order on text, but as 2, 1, 0"),
        (twice, "but as 0, 1, 2, 0, 1, 2"),
        (first_alone, "but as 0;"),
        (streams, r"hidden states of shape \(2, 1, 8, 16\) for 1 window of 8 tokens"),
    ],
)
@pytest.mark.parametrize("pruner", ["magnitude", "wanda"])
def test_blocks_that_cannot_run_alone_are_refused_in_one_line(
    loop: Loop, message: str, pruner: str
) -> None:
    model = toy(loop).model
    with pytest.raises(UserError, match=message) as caught:
        neuroal.prune(model, TOKENS, pruner=pruner, topup="uniform", sparsity=0.5)
    assert "\n" not in str(caught.value)


class Carrying(Block):
    def forward(self, hidden: Tensor, state: Tensor | None = None) -> Any:
        output = super().forward(hidden)
        return output, (output if state is None else state + output).detach().clone()


def test_values_that_blocks_pass_on_beside_hidden_states_are_refused() -> None:
    def loop(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
        state = None
        for block in blocks:
            hidden, state = block(hidden, state)
        return hidden

    model: Any = toy(loop).model
    model.blocks = nn.ModuleList(Carrying() for _ in range(3))
    with pytest.raises(UserError, match="block 1 reads other values of the blocks before it"):
        BlockRunner.capture(DecoderModel(model), TOKENS, 2)


@pytest.mark.parametrize("form", [lambda x: (x, None), lambda x: [x], lambda x: (x, (x, 3))])
def test_outputs_may_be_sequences_of_any_length(form: Callable[[Tensor], Any]) -> None:
    class Returning(Block):
        def forward(self, hidden: Tensor) -> Any:
            return form(super().forward(hidden))

    def loop(blocks: nn.ModuleList, hidden: Tensor) -> Tensor:
        shape = len(form(hidden))
        for block in blocks:
            output = block(hidden)
            assert len(output) == shape
            hidden = output[0]
        return hidden

    decoder = toy(loop)
    decoder.model.blocks = nn.ModuleList(Returning() for _ in range(3))
    decoder = DecoderModel(decoder.model)
    expected = loop(decoder.blocks, decoder.model.embed(TOKENS))
    runner = BlockRunner.capture(decoder, TOKENS, 2)
    hidden = runner.embedded
    for index in range(3):
        hidden = runner.run(index, hidden)
    torch.testing.assert_close(torch.cat(hidden), expected)


@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "sparsegpt"])
def test_a_linear_that_is_never_called_is_pruned_by_magnitude_and_reported(pruner: str) -> None:
    decoder = toy(plain)
    weight = decoder.blocks[1].idle.weight.detach().clone()
    settings: dict[str, Any] = {"topup": "uniform", "sparsity": 0.5}
    if pruner == "magnitude":
        result = neuroal.prune(decoder.model, TOKENS, pruner=pruner, **settings)
    else:
        with pytest.warns(UserWarning, match=r"block 1: 1 of 2 linears .*\(idle 0 of 16\)"):
            result = neuroal.prune(decoder.model, TOKENS, pruner=pruner, **settings)
    mask = result.masks["1.idle"]
    assert mask.sum() == 8 * 8
    if pruner == "sparsegpt":  # it compares the rows, too
        assert weight[mask].abs().max() <= weight[~mask].abs().min()
    else:
        order = weight.abs().argsort(dim=1)
        assert all(not mask[row, order[row, 8:]].any() for row in range(8))


def test_a_linear_that_sees_some_tokens_has_no_fixed_place_in_the_order_of_calls() -> None:
    class Halved(Block):
        def forward(self, hidden: Tensor) -> Any:
            return hidden + self.up(hidden) + self.idle(hidden[:, ::2]).sum()

    model: Any = toy(plain).model
    model.blocks[1] = Halved()
    runner = BlockRunner.capture(DecoderModel(model, exclude=["0.idle", "2.idle"]), TOKENS, 2)
    orders = runner.probe.orders
    assert [order and order.keys for order in orders] == [("0.up",), None, ("2.up",)]


def test_the_list_of_xlm_which_does_not_hold_blocks_is_refused() -> None:
    model = build("xlm", emb_dim=32, n_layers=4, n_heads=4, n_words=64)
    with pytest.raises(UserError, match="XLMWithLMHeadModel"):
        neuroal.prune(model, TOKENS, pruner="magnitude", topup="uniform")
